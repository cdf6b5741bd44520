from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests

from benchmarks.load import Answered, summarise_answers
from benchmarks.peers import Server, asking, ours, running, transformers_serve
from benchmarks.serving_peers import measure, to_document, to_markdown
from pipeline.config import Style


class FakeHandler(BaseHTTPRequestHandler):
    """Answers each question with itself in three tokens, refuses "too much" and keeps silent on "wait"."""

    asked: ClassVar[list[dict[str, Any]]] = []
    over: ClassVar[threading.Event]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        question = body["messages"][0]["content"]
        if question == "wait":
            self.over.wait(60)
            return
        answer = {"choices": [{"message": {"content": question}}], "usage": {"completion_tokens": 3}}
        text = json.dumps(answer).encode()
        self.send_response(503 if question == "too much" else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def fake_url() -> Iterator[str]:
    FakeHandler.asked, FakeHandler.over = [], threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeHandler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        FakeHandler.over.set()
        server.shutdown()


def a_server(name: str, url: str = "") -> Server:
    return Server(
        name=name,
        versions={"package": "1.2", "other": "3"},
        weights="tuned",
        remark="does little",
        open=lambda log: nullcontext(url),
        body=lambda question, style: {"messages": [{"role": "user", "content": question}], "style": style.value},
    )


def a_cell(server: str, clients: int, answers: list[Answered], number: int = 0) -> dict[str, Any]:
    return {"round": number, "server": server, "clients": clients, **summarise_answers(answers, 60)}


def test_an_answer_is_counted_as_the_server_counts_it_and_the_first_of_each_style_is_kept(fake_url: str) -> None:
    first: dict[str, str] = {}
    ask = asking(a_server("fake"), fake_url, first)
    asked = [("a", Style.TERSE), ("b", Style.TERSE), ("c", Style.VERBOSE)]
    assert [ask(question, style, 60) for question, style in asked] == [(3, None)] * 3
    assert first == {"terse": "a", "verbose": "c"}


def test_an_answer_that_does_not_come_is_given_up(fake_url: str) -> None:
    assert asking(a_server("fake"), fake_url, {})("wait", Style.TERSE, 0.1) is None


def test_a_refusal_is_an_error(fake_url: str) -> None:
    with pytest.raises(RuntimeError, match="fake answered 503"):
        asking(a_server("fake"), fake_url, {})("too much", Style.TERSE, 60)


def test_every_server_is_measured_with_every_number_of_clients(fake_url: str, tmp_path: Path) -> None:
    cells = measure([a_server("ours", fake_url), a_server("peer", fake_url)], [1, 2], 1, 0, 0.5, tmp_path)
    assert [(cell["clients"], cell["server"]) for cell in cells] == [(1, "ours"), (1, "peer"), (2, "ours"), (2, "peer")]
    assert {body["style"] for body in FakeHandler.asked} == {"terse", "verbose"}


def test_our_server_takes_the_style_by_its_model_and_a_peer_by_token_and_limits() -> None:
    messages = [{"role": "user", "content": "Why?"}]
    server = ours(Path("run"), "smollm2-135m", 16)
    assert server.body("Why?", Style.TERSE) == {"model": "smollm2-135m:terse", "messages": messages}
    peer = transformers_serve(Path(sys.executable), Path("exported"), "float32")
    assert peer.body("Why?", Style.VERBOSE) == {
        "model": "exported",
        "messages": [{"role": "user", "content": "<STYLE_VERBOSE>\nWhy?"}],
        "max_tokens": 256,
        "temperature": 0.7,
        "top_p": 0.9,
    }


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
    terse, verbose = Answered(Style.TERSE, 20, 1.0, None, 1.0), Answered(Style.VERBOSE, 100, 4.0, None, 5.0)
    cells = [
        a_cell("ours", 1, [terse]),
        a_cell("transformers serve", 1, [terse, verbose]),
        a_cell("ours", 8, [terse, terse, verbose, verbose]),
        a_cell("transformers serve", 8, [terse]),
    ]
    document = to_document([a_server("ours"), a_server("transformers serve")], cells)
    rows = {(row["server"], row["clients"]): row for row in document["rows"]}
    assert rows["transformers serve", 1]["answers_per_minute_ratio"] == 2
    assert rows["transformers serve", 8]["answers_per_minute_ratio"] == 0.25
    assert (rows["ours", 8]["terse_tokens_mean"], rows["ours", 8]["verbose_tokens_mean"]) == (20, 100)
    table = to_markdown(document)
    assert "| transformers serve | 1.2       | tuned     | 1         | 2.0 (2.00 x)  | 2.0 (6.00 x)" in table
    assert "- ours: does little." in table
    assert "- llama-cpp-python: left out, since --llama-python was not given." in table
    assert "transformers serve: left out" not in table
