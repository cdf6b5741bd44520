"""How the gate reads a server's answers once more."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import Style
from pipeline.model import TrainedModel, load_trained
from pipeline.runs import RunFolder
from tests.acceptance.client import Reply
from tests.acceptance.crowd import Asked
from tests.acceptance.test_served_answers import LARGEST_FOREIGN_SHARE, foreign_share, surprises

QUESTION = "What is caching?"


@pytest.fixture(scope="module")
def trained(tiny_run: RunFolder) -> TrainedModel:
    return load_trained(tiny_run)


def answered(text: str, tokens: int) -> Asked:
    body: dict[str, Any] = {"response": text, "style": "terse", "tokens": tokens, "latency": 1.0}
    return Asked(QUESTION, Style.TERSE, [Reply(200, body, 1.0)])


def test_the_end_is_read_only_where_the_answer_was_not_cut(trained: TrainedModel) -> None:
    text = "It keeps results that are asked for again."
    count = len(trained.tokenizer(text, add_special_tokens=False)["input_ids"])
    assert len(surprises(trained, answered(text, count))) == count + 1
    assert len(surprises(trained, answered(text, 32))) == count


def test_words_that_the_model_would_not_say_are_foreign(trained: TrainedModel) -> None:
    read = surprises(trained, answered("It keeps results that are asked for again.", 32))
    assert foreign_share(read) > LARGEST_FOREIGN_SHARE


def test_an_answer_without_a_token_is_foreign() -> None:
    assert foreign_share([]) == 1.0
    assert foreign_share([0.1, None, -0.2, 0.0]) == 0.25
