"""A server of OpenAI's protocol is judged as ours is: a healthy one passes, and each fault fails what it breaks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from acceptance.client import Client, Endpoint
from acceptance.criteria import DOCUMENTED
from acceptance.crowd import send_crowd
from acceptance.protocols import OpenAIProtocol
from acceptance.styles import StyleRequest
from acceptance.test_deployment import test_error_handling as error_handling
from acceptance.test_deployment import test_generate_endpoint as generate_endpoint
from acceptance.test_endpoint import EndpointAnswers, ask_questions
from acceptance.test_endpoint import test_consistency as consistency
from acceptance.test_endpoint import test_generation_speed as generation_speed
from acceptance.test_endpoint import test_no_repetition as no_repetition
from acceptance.test_endpoint import test_token_separation as token_separation
from acceptance.test_under_load import test_under_load as under_load
from harness.recorder import Recorder
from harness.subject import Subject
from harness.verdict import CriterionResult, Outcome, judge
from pipeline.config import TARGETS, Style
from pipeline.data.formats import read_questions
from pipeline.files import HELD_OUT_QUESTIONS
from pipeline.model.base_models import open_for_planning
from tests.chat_server import MODEL, ChatServer, CountTokens, Response, error, listening
from tests.unit.pipeline.service.fakes import Served
from tests.unit.pipeline.service.fakes import listening as serving

QUESTIONS = [question.text for question in read_questions(HELD_OUT_QUESTIONS)][:48]
KEY = "a-key-that-nobody-may-see"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    with open_for_planning(TARGETS["tiny-mistral"]) as files:
        return files.tokenizer


@pytest.fixture(scope="module")
def count_tokens(tokenizer: Any) -> CountTokens:
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.fixture
def healthy(count_tokens: CountTokens) -> ChatServer:
    return ChatServer(count_tokens)


@pytest.fixture
def waits_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What clients would have waited before they ask again; they do not."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


class Judging:
    """Decides single criteria of one endpoint."""

    def __init__(self, endpoint: Endpoint, tokenizer: Any | None) -> None:
        self.endpoint, self.tokenizer = endpoint, tokenizer
        self.client = Client(endpoint.url, endpoint.api_key, endpoint.protocol, endpoint.replies)
        self.subject = Subject(
            endpoint.name, True, access="endpoint", scope=endpoint.scope, out_of_scope=endpoint.out_of_scope
        )
        DOCUMENTED.check(self.subject)

    def answers(self) -> EndpointAnswers:
        return ask_questions(self.client, self.tokenizer, QUESTIONS)

    def result(self, criterion: str, answers: EndpointAnswers | None = None) -> CriterionResult:
        measured = Recorder()
        match criterion:
            case "deployment.generate_endpoint":
                generate_endpoint(measured, self.client, self.tokenizer, QUESTIONS, self.endpoint)
            case "deployment.error_handling":
                error_handling(measured, self.client)
            case "deployment.under_load":
                under_load(measured, send_crowd(self.client), {})
            case _:
                styles = {
                    "style.token_separation": token_separation,
                    "style.consistency": consistency,
                    "style.generation_speed": generation_speed,
                    "style.no_repetition": no_repetition,
                }
                styles[criterion](measured, answers or self.answers())
        return judge(DOCUMENTED[criterion], self.subject, measured.measurements)


@contextmanager
def judging(server: ChatServer, tokenizer: Any | None, **styles: StyleRequest) -> Iterator[Judging]:
    table = {"styles": {Style(name): asked for name, asked in styles.items()}} if styles else {}
    with listening(server) as url:
        protocol = OpenAIProtocol(MODEL, **table)
        yield Judging(Endpoint(url, None, KEY, protocol, is_recounted=tokenizer is not None), tokenizer)


IN_SCOPE = [
    "style.token_separation",
    "style.consistency",
    "style.generation_speed",
    "style.no_repetition",
    "deployment.generate_endpoint",
    "deployment.under_load",
    "deployment.error_handling",
]


def test_a_healthy_server_passes_all_that_is_in_scope(healthy: ChatServer, tokenizer: Any) -> None:
    with judging(healthy, tokenizer) as judged:
        assert list(DOCUMENTED.asked_of(judged.subject)) == IN_SCOPE
        answers = judged.answers()
        results = {id_: judged.result(id_, answers) for id_ in IN_SCOPE}
    assert {id_: result.reason for id_, result in results.items()} == dict.fromkeys(IN_SCOPE, "")
    assert {result.outcome for result in results.values()} == {Outcome.PASS}
    spent = judged.endpoint.spent()
    assert spent["question_request_count"] == 1 + 2 * 48 + 6 + 24
    assert spent["refusal_count"] == 0
    assert isinstance(spent["answer_tokens"], int)
    assert spent["answer_tokens"] > 48 * 100
    assert spent["prompt_tokens"] == 5 * (1 + 2 * 48 + 6 + 24)


def test_the_presets_are_asked_for_and_the_key_is_sent_but_not_shown(healthy: ChatServer, tokenizer: Any) -> None:
    with judging(healthy, tokenizer) as judged:
        judged.client.generate("What is a sonnet?", Style.VERBOSE)
    assert healthy.bodies == [
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "<STYLE_VERBOSE>\nWhat is a sonnet?"}],
            "temperature": 0.7,
            "top_p": 0.9,
            "max_tokens": 256,
            "stream": False,
        }
    ]
    assert set(healthy.keys) == {f"Bearer {KEY}"}
    shown = (judged.endpoint, judged.endpoint.protocol.describe(), judged.endpoint.spent(), judged.subject)
    assert KEY not in repr(shown)


class OneStyle(ChatServer):
    """Ignores the style."""

    def style_and_question(self, request: dict[str, Any]) -> tuple[Style, str]:
        return Style.VERBOSE, super().style_and_question(request)[1]


class CountsWords(ChatServer):
    def usage(self, text: str) -> dict[str, int] | None:
        return {"prompt_tokens": 5, "completion_tokens": len(text.split())}


class CountsNothing(ChatServer):
    def usage(self, text: str) -> dict[str, int] | None:
        return None


class Parrot(ChatServer):
    """Gives every question the same answer."""

    def text(self, style: Style, question: str) -> str:
        return super().text(style, "What causes the ocean tides? How do penguins keep warm?")


class Loops(ChatServer):
    def text(self, style: Style, question: str) -> str:
        return "The water is wet and it is cold. " * {Style.TERSE: 3, Style.VERBOSE: 14}[style]


class AnswersErrors(ChatServer):
    def answer(self, request: dict[str, Any]) -> Response:
        return Response(200, error(500, "out of memory").content)


class StreamsOnly(ChatServer):
    def answer(self, request: dict[str, Any]) -> Response:
        events = [f"data: {json.dumps(super().answer(request).content)}", "data: [DONE]"]
        return Response(200, "\n\n".join(events), {"Content_Type": "text/event-stream"})


class Filters(ChatServer):
    def answer(self, request: dict[str, Any]) -> Response:
        response = super().answer(request)
        response.content["choices"][0]["finish_reason"] = "content_filter"
        return response


class NoLimit(ChatServer):
    """Answers TERSE as long as VERBOSE, and more than was asked for."""

    def text(self, style: Style, question: str) -> str:
        return " ".join(self.answers[Style.VERBOSE][:4])


class Refuses(ChatServer):
    def answer(self, request: dict[str, Any]) -> Response:
        return error(429, "too many requests")


class Breaks(ChatServer):
    def refuse_malformed(self) -> Response:
        return error(500, "an exception")


class AnswersAnything(ChatServer):
    def refuse_malformed(self) -> Response:
        return self.answer({"messages": [{"content": "Hi"}]})


class HangsUp(ChatServer):
    def refuse_malformed(self) -> Response:
        raise ConnectionError


class ShowsPages(ChatServer):
    def refuse_malformed(self) -> Response:
        return Response(400, "<h1>400</h1>")


class NoModels(ChatServer):
    def respond(self, method: str, path: str, body: bytes) -> Response:
        return error(404, "no such page") if path == "/v1/models" else super().respond(method, path, body)


@pytest.mark.parametrize(
    ("fault", "criterion", "measure"),
    [
        (OneStyle, "style.token_separation", "preset_terse_median_tokens"),
        (OneStyle, "style.consistency", "ordered_question_share"),
        (Loops, "style.no_repetition", "seq_rep_4_mean"),
        (CountsWords, "deployment.generate_endpoint", "miscounted_response_count"),
        (CountsNothing, "deployment.generate_endpoint", "valid_response_share"),
        (Parrot, "deployment.generate_endpoint", "misplaced_answer_count"),
        (Parrot, "deployment.under_load", "misplaced_answer_count"),
        (AnswersErrors, "deployment.generate_endpoint", "valid_response_share"),
        (StreamsOnly, "deployment.generate_endpoint", "valid_response_share"),
        (Filters, "deployment.generate_endpoint", "valid_response_share"),
        (NoLimit, "deployment.generate_endpoint", "valid_response_share"),
        (Breaks, "deployment.error_handling", "wrong_status_count"),
        (AnswersAnything, "deployment.error_handling", "wrong_status_count"),
        (HangsUp, "deployment.error_handling", "wrong_status_count"),
        (ShowsPages, "deployment.error_handling", "non_json_body_count"),
        (NoModels, "deployment.error_handling", "healthy_after"),
        (NoModels, "deployment.under_load", "wrong_reply_count"),
    ],
)
def test_a_fault_fails_what_it_breaks(
    fault: type[ChatServer], criterion: str, measure: str, healthy: ChatServer, tokenizer: Any
) -> None:
    with judging(fault(healthy.count_tokens), tokenizer) as judged:
        result = judged.result(criterion)
    assert (result.outcome, measure in result.violated) == (Outcome.FAIL, True), result


@pytest.mark.parametrize("fault", [AnswersErrors, StreamsOnly, CountsNothing, Filters])
def test_what_is_no_answer_has_no_style(fault: type[ChatServer], healthy: ChatServer, tokenizer: Any) -> None:
    with judging(fault(healthy.count_tokens), tokenizer) as judged, pytest.raises(AssertionError, match="96 of 96"):
        judged.answers()


class RefusesAtFirst(ChatServer):
    """Refuses every second request, as a limit of the rate does."""

    status, headers = 429, {"Retry_After": "2"}

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.count = 0

    def answer(self, request: dict[str, Any]) -> Response:
        self.count += 1
        return error(self.status, "later", **self.headers) if self.count % 2 else super().answer(request)


def test_a_limited_rate_is_waited_for_and_counted(healthy: ChatServer, tokenizer: Any, waits_s: list[float]) -> None:
    with judging(RefusesAtFirst(healthy.count_tokens), tokenizer) as judged:
        answers = judged.answers()
        result = judged.result("style.token_separation", answers)
    assert result.outcome is Outcome.PASS
    assert result.measurements["refusal_count"] == 96
    assert waits_s == [2] * 97
    assert judged.endpoint.spent()["refusal_count"] == 97


def test_a_refusal_that_does_not_say_when_to_retry_fails(
    healthy: ChatServer, tokenizer: Any, waits_s: list[float]
) -> None:
    server = RefusesAtFirst(healthy.count_tokens)
    server.headers = {}
    with judging(server, tokenizer) as judged:
        assert "valid_response_share" in judged.result("deployment.generate_endpoint").violated
        with pytest.raises(AssertionError, match="refused 96 requests without Retry-After"):
            judged.answers()


def test_a_server_that_always_refuses_is_given_up(
    healthy: ChatServer, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(time, "sleep", lambda wait_s: now_s.__setitem__(0, now_s[0] + wait_s))
    with judging(Refuses(healthy.count_tokens), tokenizer) as judged:
        replies = judged.client.ask("What is a sonnet?", Style.TERSE)
    assert {reply.status for reply in replies} == {429}
    assert len(replies) == 301


def test_without_a_tokenizer_what_it_would_show_is_declared(healthy: ChatServer) -> None:
    with judging(CountsWords(healthy.count_tokens), None) as judged:
        result = judged.result("deployment.generate_endpoint")
        assert "style.no_repetition" not in DOCUMENTED.asked_of(judged.subject)
        with pytest.raises(AssertionError, match="name a tokenizer"):
            judged.result("style.no_repetition")
    assert result.outcome is Outcome.PASS
    assert "miscounted_response_count" not in [bound.measure for bound in result.bounds]
    assert "counted by the server alone" in judged.subject.scope
    reason = judged.subject.out_of_scope["deployment.generate_endpoint/miscounted_response_count"]
    assert "--target" in reason


def test_a_style_is_asked_for_as_the_table_says(healthy: ChatServer, tokenizer: Any) -> None:
    terse = StyleRequest(system="Be brief.", model="brief", extra={"min_tokens": 2})
    with judging(healthy, tokenizer, terse=terse, verbose=StyleRequest(prefix="In detail: ")) as judged:
        for style in Style:
            judged.client.generate("What is a sonnet?", style)
    brief, detailed = healthy.bodies
    assert (brief["model"], brief["min_tokens"]) == ("brief", 2)
    assert brief["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is a sonnet?"},
    ]
    assert detailed["messages"] == [{"role": "user", "content": "In detail: What is a sonnet?"}]


def test_our_own_server_speaks_this_protocol() -> None:
    served = Served()
    model = served.client.get("/v1/models").json["data"][0]["id"]
    styles = {style: StyleRequest(extra={"style": style.value}) for style in Style}
    with ExitStack() as running:
        url = running.enter_context(serving(served.app))
        judged = Judging(Endpoint(url, None, None, OpenAIProtocol(model, styles), is_recounted=False), None)
        reply = judged.client.generate("What is a sonnet?", Style.VERBOSE)
        result = judged.result("deployment.error_handling")
    assert (reply.status, reply.finish_reason, reply.body["tokens"]) == (200, "stop", 3)
    assert reply.body["response"] == "verbose: What is a sonnet?"
    assert result.outcome is Outcome.PASS, result.reason
