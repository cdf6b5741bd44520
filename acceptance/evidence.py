"""What the fixtures find out about a subject: its training, its answers, and its counterfactuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config import GenerationConfig, Style
from pipeline.run_folder import RunFolder

if TYPE_CHECKING:
    from pipeline.generation.generate import Generation
    from pipeline.model.loading import LoadedModel


@dataclass(frozen=True)
class TrainingOutcome:
    """A training process that ended, successfully or not."""

    run: RunFolder
    exit_status: int


@dataclass(frozen=True)
class Answers:
    """Answers to the held-out questions, in their order.

    Attributes:
        unconstrained: Greedy with a high cap, one per question.
        presets: Under the documented presets, by sampling seed, for the first questions.
        rejected_by: Greedy answers with their questions by which the plan rejected the model; then there are no others.
    """

    unconstrained: dict[Style, list[Generation]]
    presets: dict[int, dict[Style, list[Generation]]]
    rejected_by: Sequence[tuple[str, Generation]] = ()

    @property
    def decodings(self) -> list[dict[Style, list[Generation]]]:
        """The unconstrained decoding and each sampled one."""
        return [self.unconstrained, *self.presets.values()]

    @property
    def every(self) -> list[Generation]:
        """All answers."""
        return [answer for decoding in self.decodings for answers in decoding.values() for answer in answers]


@dataclass(frozen=True)
class Counterfactuals:
    """Greedy answers to the first questions, each arm with one thing changed.

    Attributes:
        no_token: The trained model without a style token.
        adapter_off: The base model without the adapter, with each token.
        swapped: The trained model with the two tokens' rows swapped.
    """

    no_token: list[Generation]
    adapter_off: dict[Style, list[Generation]]
    swapped: dict[Style, list[Generation]]


def greedy_record(model: LoadedModel, question: str, style: Style, config: GenerationConfig) -> dict[str, Any]:
    """A greedy answer as ``harness.snapshots.compare`` takes it, with the likeliest tokens of every step."""
    from pipeline.generation.scoring import greedy_with_log_probabilities

    answer, likeliest = greedy_with_log_probabilities(model.model, model.tokenizer, question, style, config)
    return {
        "text": answer.text,
        "token_ids": list(answer.token_ids),
        "token_count": answer.token_count,
        "finish_reason": answer.finish_reason,
        "top5": [[[token, round(value, 4)] for token, value in step] for step in likeliest],
    }
