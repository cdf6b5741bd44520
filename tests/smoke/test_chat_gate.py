"""The complete gate against servers of OpenAI's protocol, as a user starts it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from acceptance.criteria import DOCUMENTED
from pipeline.config import TARGETS, Style
from pipeline.model.base_models import open_for_planning
from tests.chat_server import MODEL, ChatServer, listening
from tests.smoke.gate import acceptance

KEY = "a-key-that-nobody-may-see"


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer alone: no weights, no configuration."""
    folder = tmp_path_factory.mktemp("base") / "tokenizer"
    with open_for_planning(TARGETS["tiny-mistral"]) as files:
        files.tokenizer.save_pretrained(folder)
    return folder


def judged(server: ChatServer, folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and document of an acceptance of the server."""
    chosen = ("-m", "deployment", "--protocol", "openai", "--model", MODEL, "--acceptance-dir", str(folder))
    with listening(server) as url:
        status = acceptance(*chosen, "--endpoint", url, *options)
    return status, json.loads((folder / "acceptance.json").read_text(encoding="utf-8"))


@pytest.fixture
def server(tokenizer_folder: Path) -> ChatServer:
    from pipeline.model.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(tokenizer_folder)
    return ChatServer(lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]))


@pytest.mark.slow
def test_a_healthy_server_is_accepted_within_a_scope_that_is_named(
    server: ChatServer, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERBOSITY_API_KEY", KEY)
    status, document = judged(server, tmp_path, f"--base-model={tokenizer_folder}")
    [subject] = document["subjects"]
    reasons = {criterion["id"]: criterion["reason"] for criterion in subject["criteria"]}
    assert (status, document["decision"]) == (0, "ACCEPTED"), reasons
    assert list(subject["out_of_scope_reasons"]) == ["deployment.health_endpoint"]
    assert "POST /v1/chat/completions" in subject["scope"]
    assert len(subject["criteria"]) == 7
    asked = document["provenance"]["endpoint"]
    assert (asked["protocol"], asked["model"], asked["refusal_count"]) == ("openai", MODEL, 0)
    assert asked["answer_tokens"] > asked["question_request_count"] > 100
    written = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.*") if path.is_file()]
    assert not any(KEY in text for text in written)
    assert set(server.keys) == {f"Bearer {KEY}"}
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert all(words in report for words in ("scope: POST", "out of scope: deployment", "endpoint.answer_tokens"))


@pytest.mark.slow
def test_without_a_tokenizer_the_verdict_says_who_counted(server: ChatServer, tmp_path: Path) -> None:
    status, document = judged(server, tmp_path)
    [subject] = document["subjects"]
    assert (status, subject["decision"]) == (0, "ACCEPTED")
    assert "tokens are counted by the server alone" in subject["scope"]
    assert set(subject["out_of_scope"]) >= {"style.no_repetition", "deployment.health_endpoint"}
    assert "style.no_repetition" not in [criterion["id"] for criterion in subject["criteria"]]


class Untuned(ChatServer):
    """A wrong model: it answers well and knows no styles."""

    def style_and_question(self, request: dict[str, Any]) -> tuple[Style, str]:
        return Style.VERBOSE, super().style_and_question(request)[1]


@pytest.mark.slow
def test_a_wrong_model_behind_a_healthy_server_is_rejected(server: ChatServer, tmp_path: Path) -> None:
    status, document = judged(Untuned(server.count_tokens), tmp_path, "--target=tiny-mistral")
    assert (status, document["decision"]) == (10, "REJECTED")
    outcomes = {criterion["id"]: criterion["outcome"] for criterion in document["subjects"][0]["criteria"]}
    assert outcomes["style.consistency"] == "FAIL"
    assert outcomes["deployment.error_handling"] == "PASS"
    assert set(outcomes) < set(DOCUMENTED)
