from __future__ import annotations

import json
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests

from benchmarks.chat import asking
from benchmarks.load import Answered, summarise_answers
from benchmarks.peers import WITH_USAGE, Server, memory_mib, ours, running, transformers_serve, vllm
from benchmarks.serving_peers import ALONE_CLIENTS, measure, to_document, to_markdown
from pipeline.config import Style
from tests.unit.pipeline.service.fakes import Served, listening


class FakeHandler(BaseHTTPRequestHandler):
    """Streams each question back and counts three tokens if asked, refuses "too much", breaks off "half" and keeps
    silent on "wait", at first or after a word."""

    asked: ClassVar[list[dict[str, Any]]] = []
    over: ClassVar[threading.Event]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        question = body["messages"][0]["content"]
        if question == "wait":
            self.over.wait(60)
            return
        self.send_response(503 if question == "too much" else 200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for word in ["", *question.split()]:
            if word == "wait":
                self.over.wait(60)
                return
            self.send({"choices": [{"delta": {"content": word}, "finish_reason": None}]})
        if question == "half":
            return
        self.send({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        if "stream_options" in body:
            self.send({"choices": [], "usage": {"completion_tokens": 3}})
        self.wfile.write(b"data: [DONE]\n\n")

    def send(self, chunk: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class FakeServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client has given up."""


@pytest.fixture
def fake_url() -> Iterator[str]:
    FakeHandler.asked, FakeHandler.over = [], threading.Event()
    with FakeServer(("127.0.0.1", 0), FakeHandler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        FakeHandler.over.set()
        server.shutdown()


BOTH = tuple(Style)


def a_server(name: str, url: str = "", usage: dict[str, Any] = WITH_USAGE) -> Server:
    return Server(
        name=name,
        versions={"package": "1.2", "other": "3"},
        weights="tuned",
        remark="does little",
        open=lambda log: nullcontext(url),
        body=lambda question, style: {
            "messages": [{"role": "user", "content": question}],
            "style": style.value,
            **usage,
        },
    )


def a_cell(server: str, clients: int, answers: list[Answered], styles: tuple[Style, ...] = BOTH) -> dict[str, Any]:
    asked = {"round": 0, "server": server, "clients": clients, "styles": styles}
    return {**asked, **summarise_answers(answers, 60), "memory_mib": 512.0}


def test_an_answer_is_counted_as_the_server_counts_it_and_the_first_of_each_style_is_kept(fake_url: str) -> None:
    first: dict[str, str] = {}
    with asking(a_server("fake"), fake_url, first) as ask:
        for question, style in (("a b", Style.TERSE), ("c", Style.TERSE), ("d", Style.VERBOSE)):
            answer = ask(question, style, 60)
            assert answer is not None
            assert answer[0] == 3
            assert answer[1] is not None
    assert first == {"terse": "ab", "verbose": "d"}
    assert all(body["stream"] for body in FakeHandler.asked)


def test_our_server_streams_its_answer_and_counts_it() -> None:
    first: dict[str, str] = {}
    server = ours(Path("run"), "tiny", 16)
    with listening(Served().app) as url, asking(server, url, first) as ask:
        answer = ask("Why?", Style.TERSE, 60)
    assert answer is not None
    assert answer[0] == 3
    assert first == {"terse": "terse: Why?"}


def test_without_the_servers_count_the_chunks_with_text_are_counted(fake_url: str) -> None:
    with asking(a_server("fake", usage={}), fake_url, {}) as ask:
        answer = ask("one two", Style.TERSE, 60)
    assert answer is not None
    assert answer[0] == 2


@pytest.mark.parametrize("question", ["wait", "a wait"])
def test_an_answer_that_does_not_come_is_given_up(question: str, fake_url: str) -> None:
    with asking(a_server("fake"), fake_url, {}) as ask:
        assert ask(question, Style.TERSE, 0.1) is None


@pytest.mark.parametrize(("question", "said"), [("too much", "fake answered 503"), ("half", "broke off")])
def test_a_refusal_and_half_an_answer_are_errors(question: str, said: str, fake_url: str) -> None:
    with asking(a_server("fake"), fake_url, {}) as ask, pytest.raises(RuntimeError, match=said):
        ask(question, Style.TERSE, 60)


def test_every_server_is_measured_with_every_number_of_clients(fake_url: str, tmp_path: Path) -> None:
    cells = measure([a_server("ours", fake_url), a_server("peer", fake_url)], [1, 2], 1, 0, 0.5, tmp_path)
    assert [(cell["clients"], cell["server"]) for cell in cells] == [(1, "ours"), (1, "peer"), (2, "ours"), (2, "peer")]
    assert {body["style"] for body in FakeHandler.asked} == {"terse", "verbose"}


def test_all_servers_run_from_the_start_to_the_end(fake_url: str, tmp_path: Path) -> None:
    happened: list[str] = []

    @contextmanager
    def opened(name: str, log: Path) -> Iterator[str]:
        happened.append(f"{name} opens")
        yield fake_url
        happened.append(f"{name} closes")

    servers = [replace(a_server(name), open=partial(opened, name)) for name in ("ours", "peer")]
    cells = measure(servers, [1], 1, 0, 0.2, tmp_path)
    assert [cell["server"] for cell in cells] == ["ours", "peer"]
    assert happened == ["ours opens", "peer opens", "peer closes", "ours closes"]


def test_memory_is_of_the_process_that_listens_and_its_children(tmp_path: Path) -> None:
    script = tmp_path / "serve.py"
    child = "import threading; held = bytearray(64 << 20); print(flush=True); threading.Event().wait()"
    script.write_text(
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        f"child.stdout.readline()\n{SCRIPT}"
    )
    with running([sys.executable, str(script)], tmp_path / "log", ready="/") as url:
        measured_mib = memory_mib(url)
    assert 64 < measured_mib < 256


def test_terse_answers_are_measured_alone_too(fake_url: str, tmp_path: Path) -> None:
    mixed, alone = measure([a_server("ours", fake_url)], [ALONE_CLIENTS], 1, 0, 0.5, tmp_path)
    assert (mixed["styles"], alone["styles"]) == (list(BOTH), [Style.TERSE])
    assert (alone["clients"], alone["verbose"]["answers"]) == (ALONE_CLIENTS, 0)


def test_our_server_takes_the_style_by_its_model_and_a_peer_by_token_and_limits() -> None:
    messages = [{"role": "user", "content": "Why?"}]
    server = ours(Path("run"), "smollm2-135m", 16)
    assert server.body("Why?", Style.TERSE) == {
        "model": "smollm2-135m:terse",
        "messages": messages,
        "stream_options": {"include_usage": True},
    }
    peer = transformers_serve(Path(sys.executable), Path("exported"), "float32")
    assert peer.body("Why?", Style.VERBOSE) == {
        "model": "exported",
        "messages": [{"role": "user", "content": "<STYLE_VERBOSE>\nWhy?"}],
        "max_tokens": 256,
        "temperature": 0.7,
        "top_p": 0.9,
    }


def test_vllm_is_asked_for_as_much_as_our_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.package_versions", lambda python, *packages: dict.fromkeys(packages, "1"))
    peer = vllm(Path("environment"), Path("exported"), "bfloat16")
    body = peer.body("Why?", Style.VERBOSE)
    assert body["messages"] == [{"role": "user", "content": "<STYLE_VERBOSE>\nWhy?"}]
    assert (body["min_tokens"], body["max_tokens"]) == (64, 256)
    assert body["stream_options"] == {"include_usage": True}


def test_vllm_computes_on_every_core_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.package_versions", lambda python, *packages: {})
    monkeypatch.setattr("benchmarks.peers.os.cpu_count", lambda: 4)
    started = []
    monkeypatch.setattr("benchmarks.peers.running", lambda command, log, **how: started.append(command))
    servers = [vllm(Path("environment"), Path("exported"), "bfloat16", all_cores=which) for which in (False, True)]
    for server in servers:
        server.open(Path("log"))
    assert [server.name for server in servers] == ["vLLM", "vLLM, all cores"]
    assert ["VLLM_CPU_OMP_THREADS_BIND=0-3" in command for command in started] == [False, True]


def test_the_sampling_peer_is_told_to_sample_with_the_models_own_end(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 2}')
    peer = transformers_serve(Path(sys.executable), tmp_path, "float32", samples=True)
    told = json.loads(peer.body("Why?", Style.TERSE)["generation_config"])
    assert told == {"eos_token_id": 2, "do_sample": True, "top_k": 0, "temperature": 0.1, "top_p": 0.95}


def test_a_server_is_used_once_it_answers_and_ends_with_what_used_it(tmp_path: Path) -> None:
    script = tmp_path / "serve.py"
    script.write_text(SCRIPT)
    urls = []

    def use() -> None:
        with running([sys.executable, str(script)], tmp_path / "log", ready="/") as url:
            urls.append(url)
            assert requests.get(url, timeout=60).status_code == 200
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    with pytest.raises(requests.ConnectionError):
        requests.get(urls[0], timeout=60)


SCRIPT = """
import sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
HTTPServer((sys.argv[2], int(sys.argv[4])), SimpleHTTPRequestHandler).serve_forever()
"""


def test_no_process_of_a_server_outlives_it(tmp_path: Path) -> None:
    fifo, script = tmp_path / "fifo", tmp_path / "serve.py"
    os.mkfifo(fifo)
    script.write_text(f"import subprocess; subprocess.Popen('exec sleep 120 > {fifo}', shell=True)\n{SCRIPT}")
    with running([sys.executable, str(script)], tmp_path / "log", ready="/"):
        held = fifo.open("rb")
    with held:
        assert select.select([held], [], [], 60)[0], "the child still holds the other end"


@pytest.mark.parametrize(
    ("code", "limit_s", "said"),
    [
        ("raise SystemExit('no such model')", 60, "ended with 1: no such model"),
        ("import threading; threading.Event().wait()", 0.2, "not ready after 0.2 s"),
    ],
)
def test_a_server_that_does_not_start_is_an_error(code: str, limit_s: float, said: str, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=said),
        running([sys.executable, "-c", code], tmp_path / "log", ready="/", limit_s=limit_s),
    ):
        pass


def test_ratios_are_to_the_first_server_with_as_many_clients() -> None:
    terse, verbose = Answered(Style.TERSE, 20, 1.0, None, 1.0), Answered(Style.VERBOSE, 100, 4.0, 0.5, 5.0)
    cells = [
        a_cell("ours", 1, [terse]),
        a_cell("transformers serve", 1, [terse, verbose]),
        a_cell("ours", 4, [terse, terse, verbose, verbose]),
        a_cell("transformers serve", 4, [terse]),
    ]
    document = to_document([a_server("ours"), a_server("transformers serve")], cells)
    rows = {(row["server"], row["clients"]): row for row in document["rows"]}
    assert rows["transformers serve", 1]["answers_per_minute_ratio"] == 2
    assert rows["transformers serve", 4]["answers_per_minute_ratio"] == 0.25
    assert (rows["ours", 4]["terse_tokens_mean"], rows["ours", 4]["verbose_tokens_mean"]) == (20, 100)
    table = to_markdown(document)
    assert "| transformers serve | 1.2       | tuned     | 1         | 2.0 (2.00 x)  | 2.0 (6.00 x)" in table
    assert "- ours: does little." in table
    assert "- vLLM: left out, since --vllm was not given." in table
    assert "- llama-cpp-python: left out, since --llama-python was not given." in table
    assert "transformers serve: left out" not in table
    assert rows["ours", 4]["verbose_first_token_p95_s"] == 0.5


def test_terse_answers_beside_verbose_ones_are_compared_with_terse_ones_alone() -> None:
    def terse(latency_s: float) -> list[Answered]:
        return [Answered(Style.TERSE, 20, latency_s, 0.1, 1.0)]

    cells = [
        a_cell("ours", ALONE_CLIENTS, terse(3.0)),
        a_cell("peer", ALONE_CLIENTS, terse(9.0)),
        a_cell("ours", ALONE_CLIENTS, terse(2.0), (Style.TERSE,)),
        a_cell("peer", ALONE_CLIENTS, terse(2.0), (Style.TERSE,)),
    ]
    document = to_document([a_server("ours"), a_server("peer")], cells)
    assert [row["clients"] for row in document["rows"]] == [ALONE_CLIENTS] * 2
    assert document["rows"][0]["terse_p95_s"] == 3.0
    table = " ".join(to_markdown(document).split())
    assert "| ours | all terse | 2.0 s |" in table
    assert "| ours | mixed | 3.0 s (1.50 x) |" in table
    assert "| peer | mixed | 9.0 s (4.50 x) |" in table
