"""The result document: every outcome, bound and measurement of a run as JSON-ready data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.criteria import DOCUMENTED, Bound, Criterion
from harness.verdict import NOT_REACHED, CriterionResult, Outcome, Subject, decide, overall, worst

SCHEMA_VERSION = 1

_ABSOLUTE_PATH = re.compile(r"(^-\w|^|[=:,\s])(/[^\s=:,]+)")


def build(
    results: Mapping[Subject, Sequence[tuple[str, CriterionResult]]],
    unselected: Sequence[str],
    provenance: Mapping[str, object],
    arguments: Sequence[str],
) -> dict[str, object]:
    """Build the document of one run.

    Args:
        results: Node id and result of every collected test, by subject.
        unselected: Names of collected subjects of which no test was selected; they are not judged.
        provenance: Origin of the results.
        arguments: pytest's arguments.

    Returns:
        The content of `acceptance.json`. Non-finite numbers are the strings `nan`, `inf` and `-inf`,
        because JSON has none.
    """
    subjects = []
    decisions = []
    for subject, tests in results.items():
        criteria = {criterion.id: _final(criterion, subject, tests) for criterion in DOCUMENTED.values()}
        decisions.append(decide(criteria.values()))
        subjects.append(
            {
                "name": subject.name,
                "learned": subject.learned,
                "thresholds": dict(subject.thresholds),
                "decision": str(decisions[-1]),
                "criteria": [_criterion(DOCUMENTED[id_], final, tests) for id_, final in criteria.items()],
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "decision": str(overall(decisions)),
        "subjects": subjects,
        "subjects_not_selected": list(unselected),
        "provenance": dict(provenance),
        "pytest_arguments": list(arguments),
    }


def _final(criterion: Criterion, subject: Subject, tests: Sequence[tuple[str, CriterionResult]]) -> CriterionResult:
    mine = [result for _, result in tests if result.criterion_id == criterion.id]
    missing = CriterionResult(criterion.id, Outcome.NOT_RUN, NOT_REACHED, bounds=subject.bounds(criterion))
    return worst(mine or [missing])


def _criterion(
    criterion: Criterion, final: CriterionResult, tests: Sequence[tuple[str, CriterionResult]]
) -> dict[str, object]:
    return {
        "id": criterion.id,
        "sentence": criterion.sentence,
        "source": criterion.source,
        "needs_learned_weights": criterion.needs_learned_weights,
        "outcome": str(final.outcome),
        "reason": final.reason,
        "bounds": [
            _bound(bound, documented, final) for bound, documented in zip(final.bounds, criterion.bounds, strict=True)
        ],
        "measurements": finite(final.measurements),
        "violated": list(final.violated),
        "attachments": finite(final.attachments),
        "tests": [
            {
                "nodeid": nodeid,
                "outcome": str(result.outcome),
                "reason": result.reason,
                "measurements": finite(result.measurements),
            }
            for nodeid, result in tests
            if result.criterion_id == criterion.id
        ],
    }


def _bound(bound: Bound, documented: Bound, final: CriterionResult) -> dict[str, object]:
    return {
        "measure": bound.measure,
        "comparison": bound.comparison,
        "threshold": bound.threshold,
        "unit": bound.unit,
        "limit": bound.limit,
        # A replaced threshold must be seen by whoever reads the report.
        "documented_limit": documented.limit if documented != bound else None,
        "recorded": bound.measure in final.measurements,
        "holds": bound.holds(final.measurements.get(bound.measure)),
    }


def finite(value: Any) -> Any:
    """Return `value` with non-finite floats as strings and mappings and sequences as dicts and lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def portable_arguments(arguments: Sequence[str], root: Path) -> list[str]:
    """Return the arguments with absolute paths cut: relative to `root` inside it, else to their last part."""

    def cut(match: re.Match[str]) -> str:
        path = Path(match[2])
        inside = path.is_relative_to(root)
        return match[1] + (path.relative_to(root).as_posix() if inside else path.name)

    return [_ABSOLUTE_PATH.sub(cut, argument) for argument in arguments]
