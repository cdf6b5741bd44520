"""The gate's error rates: computed from committed answers by the criteria of today, and small enough to read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.statistics import Proportion
from harness.verdict import Outcome
from pipeline.config import Style
from sabotage.calibration import CURVES, DOSES_PERCENT, MODEL, Run, curve, flips, outcome, separation
from sabotage.calibration_table import caught_from, to_markdown

RESULT = Path(__file__).resolve().parents[3] / "results" / "sabotage" / "calibration.json"


@pytest.fixture(scope="module")
def run() -> Run:
    return Run.read(MODEL / "acceptance")


def unblemished(run: Run) -> Run:
    """The run without its few bad answers: by resampled questions even an accepted one may come too near to a bound."""
    held = {
        Style.TERSE: np.minimum(run.lengths[Style.TERSE], 40),
        Style.VERBOSE: np.clip(run.lengths[Style.VERBOSE], 110, 200),
    }
    measured = {
        name: Proportion(0 if "loop" in name or "repeat" in name else value.trials, value.trials)
        if isinstance(value, Proportion)
        else value
        for name, value in run.measured.items()
    }
    return dataclasses.replace(run, lengths=held, measured=measured)


def test_the_committed_answers_give_the_committed_measures(run: Run) -> None:
    measured = separation(run.lengths)
    assert measured.items() <= run.measured.items()
    assert isinstance(measured["terse_in_bound_share"], Proportion)


@pytest.mark.parametrize(
    ("criterion", "broken", "judge"), CURVES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_healthy_run_passes_and_a_broken_one_does_not(criterion: str, broken: str, judge: Any, run: Run) -> None:
    rng = np.random.default_rng(3)
    healthy = [outcome(criterion, judge(unblemished(run), 0.0, rng)) for _ in range(10)]
    assert healthy == [Outcome.PASS] * 10
    assert Outcome.FAIL in [outcome(criterion, judge(run, 1.0, rng)) for _ in range(10)]


def test_a_curve_counts_every_judgement_and_repeats(run: Run) -> None:
    once = curve(run, *CURVES[0], repeats=5)
    assert once == curve(run, *CURVES[0], repeats=5)
    assert [point["dose_percent"] for point in once["points"]] == list(DOSES_PERCENT)
    assert all(point["fail_count"] + point["undecided_count"] <= 5 for point in once["points"])
    assert once["points"][-1]["fail_count"] == 5


def test_a_dose_is_caught_only_if_larger_ones_are() -> None:
    def counted(*fails: int) -> dict[str, Any]:
        points = [{"dose_percent": 10 * n, "repeats": 1000, "fail_count": count} for n, count in enumerate(fails)]
        return {"points": points}

    assert caught_from(counted(0, 1000, 400, 1000, 990)) == 30
    assert caught_from(counted(0, 960, 961, 1000)) == 30
    assert caught_from(counted(0, 0, 955)) is None


def test_a_model_at_a_threshold_flips(run: Run) -> None:
    golden = flips(Run.read(MODEL / "gpu" / "golden"))
    assert golden["flip_count"] > 250
    assert golden["not_passed"]["style.token_separation"] > 250


def test_the_committed_calibration_is_of_todays_curves_and_small() -> None:
    document = json.loads(RESULT.read_text(encoding="utf-8"))
    assert [(entry["criterion"], entry["broken"]) for entry in document["curves"]] == [of[:2] for of in CURVES]
    assert all(entry["judgements"] == 300 for entry in document["flips"])
    assert len(to_markdown(document).splitlines()) < 50
