"""How often the gate is wrong, for those who release by it: from the matrix, the calibration and the plan itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from acceptance.criteria import DOCUMENTED
from acceptance.early import EARLY
from docs.blocks.markdown import table
from docs.blocks.results import origin, read
from harness.sequential import PLANNED
from harness.statistics import Proportion
from pipeline.config import Style
from pipeline.data.formats import read_questions
from pipeline.files import HELD_OUT_QUESTIONS
from sabotage.calibration_table import caught_from

MATRIX, CALIBRATION = "sabotage/matrix.json", "sabotage/calibration.json"
SURE = 0.95
"""Confidence of each one-sided limit."""


def error_rates() -> str:
    """Return how often healthy models are refused and broken ones accepted."""
    matrix, calibration = read(MATRIX), read(CALIBRATION)
    refused = Proportion(matrix["false_reject_count"], matrix["healthy_count"])
    missed = Proportion(matrix["fault_count"] - matrix["caught_count"], matrix["fault_count"])
    again = {run["run"]: Proportion(run["flip_count"], run["judgements"]) for run in calibration["flips"]}
    by = min(len(trial["outcomes"]) for trial in matrix["healthy"])
    rows = [
        (f"a healthy model, trained with another seed, by {by} of {len(matrix['criteria'])} criteria", _seen(refused)),
        *((f"the healthy model `{name}`, judged by other questions", _seen(sample)) for name, sample in again.items()),
    ]
    shown = table(
        ("what", "error", "seen"),
        [(what, "refused", seen) for what, seen in rows]
        + [("a pipeline with a known fault that a criterion must catch", "accepted", _seen(missed))],
    )
    return f"{shown}\n[{MATRIX}](../results/{MATRIX}): `make sabotage`.\n{origin(CALIBRATION)}"


def _seen(sample: Proportion) -> str:
    return f"{sample.successes} of {sample.trials}, so less than {100 * sample.high(SURE):.1f} %"


def caught_doses() -> str:
    """Return, for each statistical criterion, which part must be broken before it surely rejects."""
    rows = []
    for curve in read(CALIBRATION)["curves"]:
        dose = caught_from(curve)
        passed = {p["dose_percent"]: p["repeats"] - p["fail_count"] - p["undecided_count"] for p in curve["points"]}
        repeats = curve["points"][0]["repeats"]
        accepted = (f"{100 * passed[percent] / repeats:.0f} %" for percent in (5, 10, 20))
        rows.append((curve["criterion"], curve["broken"], *accepted, "never" if dose is None else f"{dose} %"))
    return table(("criterion", "broken", "PASS at 5 %", "at 10 %", "at 20 %", "FAIL from"), rows)


def early_rejection() -> str:
    """Return what the plan of early rejection costs and saves."""
    count = len(Style) * len(read_questions(HELD_OUT_QUESTIONS))
    plan = EARLY.describe(DOCUMENTED["style.token_separation"].bounds, {PLANNED: count})
    shown = table(
        ("good answers", "rejected early, probability", f"answers asked of {count}, mean"),
        [
            (f"{of:.0%}", f"{EARLY.rejection_probability(of):.2g}", f"{EARLY.expected_answer_count(of, count):.0f}")
            for of in (0.97, EARLY.good_share, 0.7, 0.5, 0.3, 0.0)
        ],
    )
    return (
        f"{shown}\nA model half of whose answers are wrong is rejected by {plan['median_answers_half_broken']} answers"
        " in the median. One that the full sample would accept is rejected early with a probability of at most"
        f" {plan['lost_acceptance_at_most']:.1g}, whatever its share of good answers.\n"
    )


BLOCKS: Mapping[str, Callable[[], str]] = {
    "error-rates": error_rates,
    "caught-doses": caught_doses,
    "early-rejection": early_rejection,
}
