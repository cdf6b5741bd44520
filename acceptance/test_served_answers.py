"""The project's own criterion: the server's answers are ones that the judged model could have given.

The other deployment criteria look at a reply's form and at the words that it shares with its question. This one scores
the answers with the judged model, so it detects a server that answers nonsense, or with another model.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from scipy.stats import binom

from acceptance.answers import ROUNDED_OUT_SHARE, response_ids
from acceptance.crowd import Crowd, Exchange
from harness.criteria import Bound, Criterion, Need
from harness.recorder import Recorder
from pipeline.config import GENERATION_PRESETS
from pipeline.generation.scoring import sampling_surprise
from pipeline.model.loading import TrainedModel

CHANCE = 1e-6
"""How likely an answer of the judged model, or all answers together, may be called foreign."""
SERVED_ANSWERS = Criterion(
    "deployment.served_answers",
    "The server answers as the judged model does",
    (
        Bound("answer_count", ">=", 20, "answers"),
        Bound("foreign_answer_count", "==", 0, "answers"),
        Bound("outside_token_p_value", ">=", CHANCE),
    ),
    "project; foreign: read once more by the judged model, more of the answer's tokens lie outside the nucleus of the"
    " style's preset (Holtzman et al. 2020) than rounding at its edge explains: less than once in a million answers if"
    " it puts 1 token in 100 there (binomial); the tokens of all answers together are judged in the same way",
    needs=(Need.MODEL, Need.LEARNED_WEIGHTS),
)


@pytest.mark.criterion(SERVED_ANSWERS)
def test_served_answers(measured: Recorder, crowd: Crowd, trained: TrainedModel) -> None:
    read = [surprises(trained, one) for one in crowd.answered]
    tokens, outside = sum(map(len, read)), sum(surprise.count(None) for surprise in read)
    measured.record(
        answer_count=len(read),
        foreign_answer_count=sum(map(is_foreign, read)),
        outside_token_p_value=outside_token_p_value(outside, tokens),
        token_count=tokens,
        outside_token_count=outside,
    )


def surprises(trained: TrainedModel, one: Exchange) -> list[float | None]:
    """Surprise of each token of an answer, EOS included where it was not cut; None outside the nucleus."""
    body = one.answer.body
    ended = body["tokens"] < GENERATION_PRESETS[one.style].max_new_tokens
    ids = response_ids(trained.tokenizer, body)
    return sampling_surprise(trained.model, trained.tokenizer, (one.question, one.style), ids, ended=ended)


def is_foreign(surprise: Sequence[float | None]) -> bool:
    """Whether too many tokens of an answer cannot have been sampled; an answer without tokens is foreign."""
    return outside_token_p_value(surprise.count(None), len(surprise)) < CHANCE


def outside_token_p_value(outside_token_count: int, token_count: int) -> float:
    """How likely rounding puts so many of the judged model's tokens outside the nucleus, or more (binomial).

    Args:
        outside_token_count: Tokens outside the nucleus.
        token_count: All tokens.

    Returns:
        The one-sided p-value; 0.0 without tokens, which are nobody's answer.
    """
    return float(binom.sf(outside_token_count - 1, token_count, ROUNDED_OUT_SHARE)) if token_count else 0.0
