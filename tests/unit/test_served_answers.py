"""How the gate reads a server's answers once more."""

from __future__ import annotations

import math
from typing import Any

import pytest

from acceptance.crowd import Exchange
from acceptance.protocols import Reply
from acceptance.test_served_answers import SERVED_ANSWERS, is_foreign, outside_token_p_value, read_again
from harness.subject import Subject
from harness.verdict import Outcome, judge
from pipeline.config import Style
from pipeline.model.loading import TrainedModel, load_trained
from pipeline.run_folder import RunFolder

QUESTION = "What is caching?"


@pytest.fixture(scope="module")
def trained(tiny_run: RunFolder) -> TrainedModel:
    return load_trained(tiny_run)


def answered(text: str, tokens: int) -> Exchange:
    body: dict[str, Any] = {"response": text, "style": "terse", "tokens": tokens, "latency": 1.0}
    return Exchange(QUESTION, Style.TERSE, [Reply(200, body, 1.0)])


def test_the_end_is_read_only_where_the_answer_was_not_cut(trained: TrainedModel) -> None:
    text = "It keeps results that are asked for again."
    count = len(trained.tokenizer(text, add_special_tokens=False)["input_ids"])
    assert read_again(trained, answered(text, count))[1] == count + 1
    assert read_again(trained, answered(text, 32))[1] == count


def test_words_that_the_model_would_not_say_are_foreign(trained: TrainedModel) -> None:
    assert is_foreign(*read_again(trained, answered("It keeps results that are asked for again. " * 8, 32)))


def test_rounding_makes_no_answer_foreign() -> None:
    assert not is_foreign(0, 14)
    assert not is_foreign(2, 14), "a short answer with two tokens on the edge"
    assert is_foreign(7, 27)
    assert not is_foreign(5, 150)
    assert is_foreign(15, 150)
    assert is_foreign(0, 0), "no token is nobody's answer"


def outcome(**measured: object) -> Outcome:
    measures = {"answer_count": 24, "foreign_answer_count": 0, **measured}
    return judge(SERVED_ANSWERS, Subject("model", True), measures).outcome


@pytest.mark.parametrize(("outside", "tokens"), [(4, 2095), (12, 2050), (14, 1902)])
def test_all_answers_of_a_healthy_server_together_are_the_models(outside: int, tokens: int) -> None:
    assert outcome(outside_token_p_value=outside_token_p_value(outside, tokens)) is Outcome.PASS


def test_answers_none_of_which_is_foreign_can_be_foreign_together() -> None:
    """A server without the chat template, as measured."""
    assert outcome(outside_token_p_value=outside_token_p_value(46, 1340)) is Outcome.FAIL


def test_no_token_is_nobodys_answer() -> None:
    assert outcome(outside_token_p_value=outside_token_p_value(0, 0)) is Outcome.FAIL


@pytest.mark.parametrize("measured", [{}, {"outside_token_p_value": math.nan}, {"outside_token_p_value": None}])
def test_answers_that_were_not_judged_together_are_not_accepted(measured: dict[str, object]) -> None:
    assert outcome(**measured) is Outcome.FAIL
