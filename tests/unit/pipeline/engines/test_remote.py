"""What a remote server does wrong, and how it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipeline.config import Style
from pipeline.engines import remote
from pipeline.engines.interface import AnswerRequest, EngineFailedError
from pipeline.engines.remote import RemoteEngine
from pipeline.errors import PipelineError
from pipeline.run_folder import RunFolder
from pipeline.service.loading import Remote, load_remote
from tests.unit.pipeline.engines.conftest import KEY, until
from tests.unit.pipeline.engines.openai_server import BREAKS_OFF, REFUSED


def request(prompt: str = "Why?") -> AnswerRequest:
    return AnswerRequest(prompt, Style.TERSE, 60)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "nonsense"])
def test_an_address_where_nobody_answers_is_refused_in_words(tiny_tokenizer: Any, url: str) -> None:
    with pytest.raises(PipelineError, match=r"no OpenAI-compatible server answers .* start it"):
        RemoteEngine([url], "tiny", tiny_tokenizer)


@pytest.mark.parametrize("url", ["http://[::1/v1", "http://gpu:none/v1"])
def test_what_is_no_address_is_refused_in_words(tiny_tokenizer: Any, url: str) -> None:
    with pytest.raises(PipelineError, match=r"cannot be requested .*[Pp]ort"):
        RemoteEngine([url], "tiny", tiny_tokenizer)


@pytest.mark.slow
def test_a_model_that_is_not_served_is_refused_with_those_that_are(openai_server: str, tiny_tokenizer: Any) -> None:
    with pytest.raises(PipelineError, match="serves no model 'other'; it has: tiny"):
        RemoteEngine([openai_server], "other", tiny_tokenizer)


@pytest.mark.parametrize(
    ("key", "prompt", "reason"),
    [
        ("wrong", "Why?", "answers 401.*no such key"),
        (KEY, REFUSED, "answers 400.*not that"),
        (KEY, BREAKS_OFF, "broke off"),
    ],
)
def test_a_refusal_is_a_failure_with_the_servers_words(
    openai_server: str, tiny_tokenizer: Any, key: str, prompt: str, reason: str
) -> None:
    engine = RemoteEngine([openai_server], "tiny", tiny_tokenizer, api_key=key)
    with pytest.raises(EngineFailedError) as failure:
        engine.submit(request(prompt)).result()
    assert failure.match("the engine failed")
    with pytest.raises(PipelineError, match=reason):
        raise failure.value.__cause__ or AssertionError
    assert (engine.stats().alive, engine.stats().in_flight, engine.stats().failed) == (True, 0, 1)
    engine.close()


def test_the_key_is_never_shown(openai_server: str, tiny_tokenizer: Any) -> None:
    engine = RemoteEngine([openai_server], "tiny", tiny_tokenizer, api_key="a-secret")
    with pytest.raises(EngineFailedError) as failure:
        engine.submit(request()).result()
    assert "a-secret" not in f"{failure.value} {failure.value.__cause__} {vars(engine)}"
    engine.close()


@pytest.mark.parametrize("variable", ["http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "?"])
def test_a_local_server_is_reached_without_the_proxy(
    variable: str, proxy: str, openai_server: str, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, proxy)
    engine = RemoteEngine([openai_server], "tiny", tiny_tokenizer, api_key=KEY)
    assert engine.submit(request()).result().text
    engine.close()


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "?"])
def test_an_error_of_a_proxy_names_its_variable(
    proxy: str, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(PipelineError, match=r"proxy of http_proxy; correct it or add gpu\.example to no_proxy\."):
        RemoteEngine(["http://gpu.example/v1"], "tiny", tiny_tokenizer)


class Changing(BaseHTTPRequestHandler):
    """A server that has the model as long as it is asked to, and refuses at length."""

    has_model = True

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"data": [{"id": "tiny"}] * self.has_model}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(400, "because " * 5000)

    def reply(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def changing(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of one."""
    monkeypatch.setattr(Changing, "has_model", True)
    with ThreadingHTTPServer(("127.0.0.1", 0), Changing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_a_server_that_goes_and_comes_back_is_noticed_without_a_request(
    changing: str, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PROBE_INTERVAL_S", 0.01)
    engine = RemoteEngine([changing], "tiny", tiny_tokenizer)
    assert engine.stats().alive
    Changing.has_model = False
    assert until(lambda: not engine.stats().alive)
    Changing.has_model = True
    assert until(lambda: engine.stats().alive)
    engine.close()


def test_a_long_refusal_is_cut(changing: str, tiny_tokenizer: Any) -> None:
    engine = RemoteEngine([changing], "tiny", tiny_tokenizer)
    with pytest.raises(EngineFailedError) as failure:
        engine.submit(request()).result()
    assert str(failure.value.__cause__).endswith(("answers 400: " + "because " * 5000)[: len("answers 400: ") + 500])
    engine.close()


def test_a_run_is_served_by_a_server_that_has_its_model(changing: str, tiny_run: RunFolder) -> None:
    engine, info = load_remote(tiny_run, Remote((changing,), "tiny", None), max_in_flight=2, base_model=None)
    assert (info.model, info.adapter) == ("tiny-mistral", tiny_run.read_record()["adapter"]["sha256"])
    assert info.count_tokens("Why?") > 1
    assert info.gpu_memory_gib() == 0.0
    engine.close()
