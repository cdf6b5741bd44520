"""The gate's error rates as tables: operating curves, the smallest dose that is caught, flip rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.statistics import Proportion

SHOWN_PERCENT = (0, 2, 5, 8, 10, 15, 20, 30, 50, 100)
SURE = 0.95
"""Probability of a FAIL from which on a dose counts as caught."""
_CURVES = (
    "Percent of judgements in which a criterion is FAIL when so many percent of the answers are broken; in brackets"
    " UNDECIDED, which is no acceptance either. Caught from: the smallest dose that is FAIL with a probability of 95 %."
    " {repeats} judgements each, so a figure is uncertain by 3 points (95 %). Replies: exact, if a broken one is always"
    " recognised."
)
_SIDE = 0.975
"""Confidence of one side of a two-sided interval of 95 %."""


def to_markdown(document: Mapping[str, Any]) -> str:
    """Write ``calibration.json`` as Markdown."""
    curves = document["curves"]
    shown = [f"{percent} %" for percent in SHOWN_PERCENT]
    rows = [[curve["criterion"], curve["broken"], *_cells(curve), _caught(curve)] for curve in curves]
    rows += [_replies(**of) for of in document["replies"]]
    parts = (
        _CURVES.format(repeats=curves[0]["points"][0]["repeats"]),
        _table(("criterion", "broken", *shown, "caught from"), rows),
        "The same healthy model judged again, by other samples of the questions:",
        _table(
            ("run", "judgements", "not accepted", "95 % interval", "by"), [_flips(row) for row in document["flips"]]
        ),
        "Models trained on ever more examples, judged by `style.token_separation` on samples of the questions:",
        _table(("examples", "PASS", "UNDECIDED", "FAIL"), [_graded(row) for row in document["graded"]]),
    )
    return "\n\n".join(parts) + "\n"


def caught_from(curve: Mapping[str, Any]) -> int | None:
    """The smallest dose in percent from which on every larger one is FAIL surely enough; None if there is none."""
    caught = None
    for point in reversed(curve["points"]):
        sample = Proportion(point["fail_count"], point["repeats"])
        if sample.low(SURE) < SURE:
            break
        caught = point["dose_percent"]
    return caught


def _cells(curve: Mapping[str, Any]) -> list[str]:
    points = {point["dose_percent"]: point for point in curve["points"]}
    return [_cell(points[percent]) for percent in SHOWN_PERCENT]


def _cell(point: Mapping[str, Any]) -> str:
    failed, undecided = (100 * point[f"{kind}_count"] / point["repeats"] for kind in ("fail", "undecided"))
    return f"{failed:.0f} ({undecided:.0f})" if round(undecided) else f"{failed:.0f}"


def _caught(curve: Mapping[str, Any]) -> str:
    dose = caught_from(curve)
    return "never" if dose is None else f"{dose} %"


def _replies(criterion: str, reply_count: int) -> list[str]:
    failed = [1 - (1 - percent / 100) ** reply_count for percent in SHOWN_PERCENT]
    smallest = 1 - (1 - SURE) ** (1 / reply_count)
    cells = [f"{100 * share:.0f}" for share in failed]
    return [criterion, f"replies, of {reply_count}", *cells, f"{100 * smallest:.0f} %"]


def _flips(row: Mapping[str, Any]) -> list[str]:
    sample = Proportion(row["flip_count"], row["judgements"])
    by = ", ".join(f"{name} {count}" for name, count in row["not_passed"].items() if count) or "-"
    interval = f"{100 * sample.low(_SIDE):.1f} to {100 * sample.high(_SIDE):.1f} %"
    return [row["run"], str(row["judgements"]), f"{row['flip_count']} ({100 * sample.share:.1f} %)", interval, by]


def _graded(row: Mapping[str, Any]) -> list[str]:
    failed, undecided, repeats = row["fail_count"], row["undecided_count"], row["repeats"]
    counts = (repeats - failed - undecided, undecided, failed)
    return [str(row["examples"]), *(f"{100 * count / repeats:.0f} %" for count in counts)]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
