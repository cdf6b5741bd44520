"""The proof of an export: how likely the trained model's own answers are to what was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.config import GenerationConfig, Style
from pipeline.data.formats import read_questions
from pipeline.files import HELD_OUT_QUESTIONS
from pipeline.generation.generate import generate_batch
from pipeline.generation.scoring import token_nll
from pipeline.model.loading import TrainedModel

Answer = tuple[str, Style, tuple[int, ...]]
"""Question, style and the answer's token ids."""
Score = Callable[[Any, Sequence[Answer]], list[list[float]]]
"""Negative log-likelihoods in nats of each answer's tokens, shape (T,) each, given a tokenizer and the answers."""

LEAST_LOSS_WITHOUT_ADAPTER = 5.0
"""Least ratio of the mean absolute change without the adapter to that of the export; otherwise the check could not
detect a lost adapter."""
PROOF_QUESTIONS = 6
_PROOF_LIMITS = GenerationConfig(max_new_tokens=48)


@dataclass(frozen=True, slots=True)
class ProofLimits:
    """How far a token's log-probability may change.

    Attributes:
        mean_nats: Limit of the mean signed change.
        mean_absolute_nats: Limit of the mean absolute change.
    """

    mean_nats: float
    mean_absolute_nats: float


SAME_VALUES = ProofLimits(0.02, 0.05)
"""For weights of eight bits and more: 4-bit inference in bfloat16 itself keeps eight bits of each result."""
ROUNDED_AGAIN = ProofLimits(0.10, 0.25)
"""For weights rounded to four bits a second time, on another grid. exp(0.10): the answers may become a tenth less
likely per token; the absolute change keeps the ratio of the limits above. Whether such a model still answers well is
the gate's question; this one asks whether it is the same model."""


@dataclass(frozen=True, slots=True)
class Proof:
    """How the exported model scores the trained model's own answers.

    Attributes:
        answer_count: Greedy answers of the trained model, both styles.
        token_count: Tokens of those answers.
        mean_difference_nats: Mean of ln p(token | exported) - ln p(token | trained).
        mean_absolute_difference_nats: Mean of its absolute value.
        max_absolute_difference_nats: Largest absolute value.
        without_adapter_nats: The same mean for the base without the adapter, as a reference for a lost adapter.
        limits: What the first two may be.
    """

    answer_count: int
    token_count: int
    mean_difference_nats: float
    mean_absolute_difference_nats: float
    max_absolute_difference_nats: float
    without_adapter_nats: float
    limits: ProofLimits = SAME_VALUES

    @property
    def holds(self) -> bool:
        """Whether all limits are met; NaN never meets one."""
        return not self.violations

    @property
    def violations(self) -> list[str]:
        """The limits that are not met, in words."""
        mean, absolute, limits = self.mean_difference_nats, self.mean_absolute_difference_nats, self.limits
        needed = LEAST_LOSS_WITHOUT_ADAPTER * absolute
        complaints = {
            f"a token's log-probability changes by {mean:.4f} nats on average, the limit is {limits.mean_nats:g}": abs(
                mean
            )
            <= limits.mean_nats,
            f"its absolute change is {absolute:.4f} nats on average, the limit is"
            f" {limits.mean_absolute_nats:g}": absolute <= limits.mean_absolute_nats,
            f"leaving out the adapter changes it by {self.without_adapter_nats:.4f} nats, which must be at least"
            f" {needed:.4f} for a lost adapter to be noticed": self.without_adapter_nats >= needed,
        }
        return [complaint for complaint, is_met in complaints.items() if not is_met]


def own_answers(trained: TrainedModel) -> list[Answer]:
    """Greedy answers of the trained model to the first held-out questions, in both styles."""
    questions = [question.text for question in read_questions(HELD_OUT_QUESTIONS)[:PROOF_QUESTIONS]]
    requests = [(question, style) for style in Style for question in questions]
    generations = generate_batch(trained.model, trained.tokenizer, requests, _PROOF_LIMITS)
    answers = [(*request, answer.token_ids) for request, answer in zip(requests, generations, strict=True)]
    return [answer for answer in answers if answer[2]]


def score_with(model: Any) -> Score:
    """The score of a transformers model, with an adapter or without."""
    return lambda tokenizer, answers: token_nll(model, tokenizer, answers)


def compare(
    trained: list[list[float]], exported: list[list[float]], untrained: list[list[float]], limits: ProofLimits
) -> Proof:
    """The proof from the scores of the same answers by three models."""
    expected = _flat(trained)
    difference, lost = expected - _flat(exported), expected - _flat(untrained)
    return Proof(
        answer_count=len(trained),
        token_count=len(expected),
        mean_difference_nats=difference.mean().item(),
        mean_absolute_difference_nats=difference.abs().mean().item(),
        max_absolute_difference_nats=difference.abs().max().item(),
        without_adapter_nats=lost.abs().mean().item(),
        limits=limits,
    )


def _flat(scores: list[list[float]]) -> torch.Tensor:
    return torch.tensor([value for row in scores for value in row], dtype=torch.float64)
