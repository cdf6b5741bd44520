"""The project's own criterion: the server's answers are ones that the judged model could have given.

The other deployment criteria look at a reply's form and at the words that it shares with its question. This one scores
the answers with the judged model, so it detects a server that answers nonsense, or with another model. Of an endpoint
it is asked where ``--run-dir`` names the run that the server is said to serve.
"""

from __future__ import annotations

from functools import partial

import pytest
from scipy.stats import binom

from acceptance.answers import ROUNDED_OUT_SHARE, response_ids
from acceptance.crowd import Crowd, Exchange
from acceptance.spelling import fewest_outside
from harness.criteria import Bound, Criterion, Need
from harness.recorder import Recorder
from pipeline.config import GENERATION_PRESETS
from pipeline.generation.scoring import sampling_log_probabilities
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
    needs=(Need.LEARNED_WEIGHTS,),
)


@pytest.mark.criterion(SERVED_ANSWERS)
def test_served_answers(measured: Recorder, crowd: Crowd, served_model: TrainedModel) -> None:
    read = [read_again(served_model, one) for one in crowd.answered]
    outside, tokens = (sum(counts) for counts in zip(*read, strict=True)) if read else (0, 0)
    measured.record(
        answer_count=len(read),
        foreign_answer_count=sum(is_foreign(*counts) for counts in read),
        outside_token_p_value=outside_token_p_value(outside, tokens),
        token_count=tokens,
        outside_token_count=outside,
    )


def read_again(trained: TrainedModel, one: Exchange) -> tuple[int, int]:
    """Tokens of an answer outside the nucleus, and all, EOS included where it was not cut."""
    body, request = one.answer.body, (one.question, one.style)
    ended = body["tokens"] < GENERATION_PRESETS[one.style].max_new_tokens
    read = partial(sampling_log_probabilities, trained.model, trained.tokenizer, request, ended=ended)
    return fewest_outside(trained.tokenizer, response_ids(trained.tokenizer, body), read)


def is_foreign(outside_token_count: int, token_count: int) -> bool:
    """Whether too many tokens of an answer cannot have been sampled; an answer without tokens is foreign."""
    return outside_token_p_value(outside_token_count, token_count) < CHANCE


def outside_token_p_value(outside_token_count: int, token_count: int) -> float:
    """How likely rounding puts so many of the judged model's tokens outside the nucleus, or more (binomial).

    Args:
        outside_token_count: Tokens outside the nucleus.
        token_count: All tokens.

    Returns:
        The one-sided p-value; 0.0 without tokens, which are nobody's answer.
    """
    return float(binom.sf(outside_token_count - 1, token_count, ROUNDED_OUT_SHARE)) if token_count else 0.0
