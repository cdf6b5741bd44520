"""Snapshots of the same kind of machine: not criteria, but a change in them needs a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acceptance.evidence import TrainingOutcome, greedy_record
from harness.snapshots.check import DeviceSnapshot
from harness.snapshots.compare import answers_difference, greedy_difference, trajectory_difference
from pipeline.config import UNCONSTRAINED, Style
from pipeline.model.loading import TrainedModel
from pipeline.run_folder import RunFolder

pytestmark = pytest.mark.snapshot

LOSS_MAX_DELTA = 1e-2
"""Largest difference of the loss of one step (nats per token)."""
LOSS_MEAN_DELTA = 1e-3
"""Largest mean difference of the loss, either sign: no systematic drift (nats per token)."""
LOG_PROBABILITY_TOLERANCE = 0.05
"""Largest difference of a token's log-probability within one environment (nats)."""
QUESTION_COUNT = 3


def test_loss_of_every_step(
    device_snapshot: DeviceSnapshot,
    completed_run: RunFolder,
    train_into: Callable[[Path], TrainingOutcome],
    tmp_path: Path,
) -> None:
    def losses(run: RunFolder) -> list[float]:
        return [row["loss"] for row in run.read_metrics()]

    device_snapshot.check(
        losses(completed_run),
        lambda recorded, observed: trajectory_difference(recorded, observed, LOSS_MAX_DELTA, LOSS_MEAN_DELTA),
        again=lambda: losses(train_into(tmp_path / "again").run),
    )


def test_greedy_answers(device_snapshot: DeviceSnapshot, trained: TrainedModel, questions: list[str]) -> None:
    def answers() -> dict[str, Any]:
        return {
            f"{style}: {question}": greedy_record(trained, question, style, UNCONSTRAINED)
            for question in questions[:QUESTION_COUNT]
            for style in Style
        }

    device_snapshot.check(answers(), _compare_answers, again=answers)


def _compare_answers(recorded: Any, observed: Any) -> str | None:
    return answers_difference(
        recorded, observed, lambda before, now: greedy_difference(before, now, LOG_PROBABILITY_TOLERANCE)
    )
