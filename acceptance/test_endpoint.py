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
from acceptance.client import Client, Reply
from harness.recorder import Recorder
from harness.statistics import median
from pipeline.config import Style

QUESTION_COUNT = 48


@dataclass(frozen=True)
class EndpointAnswers:
    """A server's answers to the held-out questions, with the token counts that its texts really have."""

    replies: dict[Style, list[Reply]]
    token_ids: dict[Style, list[list[int]]]

    @property
    def lengths(self) -> dict[Style, list[int]]:
        """Token counts by style."""
        return {style: [len(ids) for ids in answers] for style, answers in self.token_ids.items()}


@pytest.fixture(scope="module")
def asked(client: Client, tokenizer: Any, questions: list[str]) -> EndpointAnswers:
    client.generate(questions[0], Style.TERSE)  # warm-up, not counted
    replies = {style: [client.generate(text, style) for text in questions[:QUESTION_COUNT]] for style in Style}
    failed = [reply.status for answers in replies.values() for reply in answers if reply.status != 200]
    assert not failed, f"POST /generate answered {failed[0]} to {len(failed)} of {2 * QUESTION_COUNT} questions"
    token_ids = {s: [response_ids(tokenizer, reply.body) for reply in answers] for s, answers in replies.items()}
    return EndpointAnswers(replies, token_ids)


@pytest.mark.criterion("style.token_separation")
def test_token_separation(measured: Recorder, asked: EndpointAnswers) -> None:
    for style, lengths in asked.lengths.items():
        measured.attach("answer length", kind="distribution", values=lengths, unit="tokens", label=style.value)
    counted = [
        (reply.body.get("tokens"), length)
        for style in Style
        for reply, length in zip(asked.replies[style], asked.lengths[style], strict=True)
    ]
    measured.record(
        question_count=QUESTION_COUNT,
        preset_terse_median_tokens=median(asked.lengths[Style.TERSE]),
        preset_terse_whole_share=whole_share([str(r.body["response"]) for r in asked.replies[Style.TERSE]]),
        preset_verbose_median_tokens=median(asked.lengths[Style.VERBOSE]),
        miscounted_response_count=sum(is_wrong_count(*pair) for pair in counted),
    )


@pytest.mark.criterion("style.consistency")
def test_consistency(measured: Recorder, asked: EndpointAnswers) -> None:
    measured.record(question_count=QUESTION_COUNT, **consistency([asked.lengths]), **token_effect(asked.lengths))


@pytest.mark.criterion("style.generation_speed")
def test_generation_speed(measured: Recorder, asked: EndpointAnswers) -> None:
    walls_s = {style: [reply.wall_s for reply in answers] for style, answers in asked.replies.items()}
    record_latencies(measured, walls_s, warm_up_count=1)


@pytest.mark.criterion("style.no_repetition")
def test_no_repetition(measured: Recorder, asked: EndpointAnswers) -> None:
    measured.record(**repetition([ids for answers in asked.token_ids.values() for ids in answers]))
