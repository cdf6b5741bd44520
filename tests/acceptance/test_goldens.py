"""Outputs recorded on the same kind of machine: not criteria, but a change in them wants a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.golden.compare import token_divergence, trajectory_delta
from harness.plugin import Golden
from pipeline.config import UNCONSTRAINED, Style, Target
from pipeline.generate import generate_with_style
from pipeline.model import TrainedModel
from pipeline.runs import RunFolder
from tests.support import TrainingOutcome

pytestmark = pytest.mark.golden

LOSS_TOLERANCE = {"max_abs_delta": 1e-2, "mean_signed_delta": 1e-3}
QUESTION_COUNT = 3


@pytest.fixture(autouse=True)
def known_environment(target: Target, request: pytest.FixtureRequest) -> None:
    """On another kind of machine the recorded numbers prove nothing, neither way."""
    environment = request.config.hook.pytest_golden_environment(config=request.config)
    recorded = request.config.rootpath / "golden" / target.name / environment
    if not recorded.is_dir() and not request.config.getoption("--golden-update"):
        pytest.skip(f"no goldens from this kind of machine ({environment})")


def test_loss_of_every_step(
    golden: Golden,
    completed_run: RunFolder,
    train_into: Callable[[Path], TrainingOutcome],
    tmp_path: Path,
) -> None:
    def losses(run: RunFolder) -> list[float]:
        return [row["loss"] for row in run.read_metrics()]

    golden.check(
        losses(completed_run),
        _compare_losses,
        again=lambda: losses(train_into(tmp_path / "again").run),
        tolerance=LOSS_TOLERANCE,
    )


def _compare_losses(recorded: Any, observed: Any) -> str | None:
    delta = trajectory_delta(recorded, observed)
    if delta.within(LOSS_TOLERANCE["max_abs_delta"], LOSS_TOLERANCE["mean_signed_delta"]):
        return None
    return f"per-step loss differs: {delta}"


def test_greedy_answers(golden: Golden, trained: TrainedModel, questions: list[str]) -> None:
    def answers() -> dict[str, Any]:
        return {
            f"{style}: {question}": _describe(trained, question, style)
            for question in questions[:QUESTION_COUNT]
            for style in Style
        }

    golden.check(answers(), _compare_answers, again=answers)


def _describe(trained: TrainedModel, question: str, style: Style) -> dict[str, Any]:
    answer = generate_with_style(trained.model, trained.tokenizer, question, style, config=UNCONSTRAINED)
    return {"text": answer.text, "token_ids": list(answer.token_ids), "finish_reason": answer.finish_reason}


def _compare_answers(recorded: Any, observed: Any) -> str | None:
    if recorded.keys() != observed.keys():
        return "other questions were asked"
    for question, answer in recorded.items():
        now = observed[question]
        position = token_divergence(answer["token_ids"], now["token_ids"])
        if position is not None or answer["finish_reason"] != now["finish_reason"]:
            return f"{question}: differs from token {position} on: {now['text']!r}"
    return None
