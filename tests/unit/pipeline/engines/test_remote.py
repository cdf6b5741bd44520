"""What a remote server does wrong, and how it is told."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import Style
from pipeline.engines.interface import AnswerRequest, EngineFailedError
from pipeline.engines.remote import RemoteEngine
from pipeline.errors import PipelineError
from tests.unit.pipeline.engines.conftest import KEY
from tests.unit.pipeline.engines.openai_server import BREAKS_OFF, REFUSED


def request(prompt: str = "Why?") -> AnswerRequest:
    return AnswerRequest(prompt, Style.TERSE, 60)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "nonsense"])
def test_an_address_where_nobody_answers_is_refused_in_words(tiny_tokenizer: Any, url: str) -> None:
    with pytest.raises(PipelineError, match=r"no OpenAI-compatible server answers .* start it"):
        RemoteEngine(url, "tiny", tiny_tokenizer)


@pytest.mark.slow
def test_a_model_that_is_not_served_is_refused_with_those_that_are(openai_server: str, tiny_tokenizer: Any) -> None:
    with pytest.raises(PipelineError, match="serves no model 'other'; it has: tiny"):
        RemoteEngine(openai_server, "other", tiny_tokenizer)


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
    engine = RemoteEngine(openai_server, "tiny", tiny_tokenizer, api_key=key)
    with pytest.raises(EngineFailedError) as failure:
        engine.submit(request(prompt)).result()
    assert failure.match("the engine failed")
    with pytest.raises(PipelineError, match=reason):
        raise failure.value.__cause__ or AssertionError
    assert (engine.stats().alive, engine.stats().in_flight, engine.stats().failed) == (True, 0, 1)
    engine.close()


def test_the_key_is_never_shown(openai_server: str, tiny_tokenizer: Any) -> None:
    engine = RemoteEngine(openai_server, "tiny", tiny_tokenizer, api_key="a-secret")
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
    engine = RemoteEngine(openai_server, "tiny", tiny_tokenizer, api_key=KEY)
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
        RemoteEngine("http://gpu.example/v1", "tiny", tiny_tokenizer)
