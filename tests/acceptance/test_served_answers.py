"""A criterion of the project's own: what the server answers is what the judged model could have said.

The other criteria of serving look at a reply's form and at the words that it shares with its question. This one reads
the answers once more with the judged model, so a server that answers nonsense, or with another model, shows.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from harness.criteria import Bound, Criterion, Need
from harness.measured import Measured
from pipeline.config import GENERATION_PRESETS
from pipeline.model import TrainedModel
from pipeline.scoring import sampling_surprise
from tests.acceptance.crowd import Asked, Crowd
from tests.acceptance.measuring import response_ids

SERVED_ANSWERS = Criterion(
    "deployment.served_answers",
    "The server answers as the judged model does",
    (Bound("answer_count", ">=", 20, "answers"), Bound("foreign_answer_count", "==", 0, "answers")),
    "project; foreign: read once more by the judged model, more than a tenth of the answer's tokens lie outside the"
    " nucleus of the style's preset (Holtzman et al. 2020), so that they cannot have been sampled from it",
    needs=(Need.MODEL, Need.LEARNED_WEIGHTS),
)
LARGEST_FOREIGN_SHARE = 0.1
"""Rounding moves the nucleus' edge: of the engines' tokens at most 1 in 100 lay outside (`make engine-agreement`)."""


@pytest.mark.criterion(SERVED_ANSWERS)
def test_served_answers(measured: Measured, crowd: Crowd, trained: TrainedModel) -> None:
    read = [surprises(trained, one) for one in crowd.answered]
    shares = [foreign_share(tokens) for tokens in read]
    every = [surprise for tokens in read for surprise in tokens]
    measured.record(
        answer_count=len(read),
        foreign_answer_count=sum(share > LARGEST_FOREIGN_SHARE for share in shares),
        foreign_token_share=foreign_share(every),
        foreign_token_share_max=max(shares, default=math.nan),
        token_count=len(every),
    )


def surprises(trained: TrainedModel, one: Asked) -> list[float | None]:
    """Of each token of an answer, its end too where it was not cut."""
    body: dict[str, Any] = one.answer.body
    ended = body["tokens"] < GENERATION_PRESETS[one.style].max_new_tokens
    ids = response_ids(trained.tokenizer, body)
    return sampling_surprise(trained.model, trained.tokenizer, (one.question, one.style), ids, ended=ended)


def foreign_share(surprise: list[float | None]) -> float:
    """Share of tokens that the judged model could not have sampled; an answer without a token is nobody's."""
    return surprise.count(None) / len(surprise) if surprise else 1.0
