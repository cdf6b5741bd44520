"""Style criteria of a server that is judged from outside: with --endpoint, beside the deployment criteria."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from acceptance.answers import (
    consistency,
    is_wrong_count,
    record_latencies,
    repetition,
    response_ids,
    token_effect,
    whole_share,
)
from acceptance.client import Client
from acceptance.crowd import Exchange, ask_alone
from acceptance.protocols import Reply
from harness.recorder import Recorder
from harness.statistics import median
from pipeline.config import Style

QUESTION_COUNT = 48


@dataclass(frozen=True)
class EndpointAnswers:
    """A server's answers to the held-out questions.

    Attributes:
        exchanges: Those about each question, by style.
        token_ids: The tokens that the texts really have; None without a tokenizer.
    """

    exchanges: dict[Style, list[Exchange]]
    token_ids: dict[Style, list[list[int]]] | None

    @property
    def replies(self) -> dict[Style, list[Reply]]:
        """The final replies."""
        return {style: [one.answer for one in of] for style, of in self.exchanges.items()}

    @property
    def lengths(self) -> dict[Style, list[int]]:
        """Token counts by style: recounted, or the server's own where nothing can recount them."""
        if self.token_ids is None:
            return {style: [reply.body["tokens"] for reply in replies] for style, replies in self.replies.items()}
        return {style: [len(ids) for ids in answers] for style, answers in self.token_ids.items()}


@pytest.fixture(scope="module")
def asked(client: Client, tokenizer: Any, questions: list[str]) -> EndpointAnswers:
    return ask_questions(client, tokenizer, questions[:QUESTION_COUNT])


def ask_questions(client: Client, tokenizer: Any | None, questions: list[str]) -> EndpointAnswers:
    """Ask every question in either style, one after the other.

    Raises:
        AssertionError: One was not answered, or refused without saying when to retry.
    """
    client.ask(questions[0], Style.TERSE)  # warm-up, not counted
    exchanges = {style: [ask_alone(client, text, style) for text in questions] for style in Style}
    every = [one for of in exchanges.values() for one in of]
    failed = [one.answer.status for one in every if not has_answer(one.answer)]
    asked_by = f"POST {client.protocol.path}"
    assert not failed, f"{asked_by} did not answer {len(failed)} of {len(every)} questions, first with {failed[0]}"
    unexplained = sum(len(one.unexplained_refusals) for one in every)
    assert not unexplained, f"{asked_by} refused {unexplained} requests without Retry-After"
    if tokenizer is None:
        return EndpointAnswers(exchanges, None)
    token_ids = {s: [response_ids(tokenizer, one.answer.body) for one in of] for s, of in exchanges.items()}
    return EndpointAnswers(exchanges, token_ids)


def has_answer(reply: Reply) -> bool:
    """Whether a reply has a text and says something of its tokens; whether these are plausible, the criteria say."""
    return reply.status == 200 and isinstance(reply.body.get("response"), str) and "tokens" in reply.body


@pytest.mark.criterion("style.token_separation")
def test_token_separation(measured: Recorder, asked: EndpointAnswers) -> None:
    for style, lengths in asked.lengths.items():
        measured.attach("answer length", kind="distribution", values=lengths, unit="tokens", label=style.value)
    for style, replies in asked.replies.items():
        reasons = [reply.finish_reason for reply in replies]
        if None not in reasons:
            measured.record(**{f"{style}_cut_count": reasons.count("length")})
    measured.record(
        question_count=len(asked.exchanges[Style.TERSE]),
        preset_terse_median_tokens=median(asked.lengths[Style.TERSE]),
        preset_terse_whole_share=whole_share([str(r.body["response"]) for r in asked.replies[Style.TERSE]]),
        preset_verbose_median_tokens=median(asked.lengths[Style.VERBOSE]),
        refusal_count=sum(len(one.refusals) for of in asked.exchanges.values() for one in of),
        is_recounted=asked.token_ids is not None,
    )
    if asked.token_ids is not None:
        counted = [
            (reply.body.get("tokens"), length)
            for style in Style
            for reply, length in zip(asked.replies[style], asked.lengths[style], strict=True)
        ]
        measured.record(miscounted_response_count=sum(is_wrong_count(*pair) for pair in counted))


@pytest.mark.criterion("style.consistency")
def test_consistency(measured: Recorder, asked: EndpointAnswers) -> None:
    count = len(asked.exchanges[Style.TERSE])
    measured.record(question_count=count, **consistency([asked.lengths]), **token_effect(asked.lengths))


@pytest.mark.criterion("style.generation_speed")
def test_generation_speed(measured: Recorder, asked: EndpointAnswers) -> None:
    walls_s = {style: [reply.wall_s for reply in answers] for style, answers in asked.replies.items()}
    record_latencies(measured, walls_s, warm_up_count=1)


@pytest.mark.criterion("style.no_repetition")
def test_no_repetition(measured: Recorder, asked: EndpointAnswers) -> None:
    assert asked.token_ids is not None, "repetition is counted in tokens; name a tokenizer"
    measured.record(**repetition([ids for answers in asked.token_ids.values() for ids in answers]))
