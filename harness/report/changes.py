"""The report's section on what changed since the last accepted run, and its Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.compare_runs import Comparison, IncomparableRunsError, Kind, compare
from harness.report.formatting import ABSENT, escape_markdown, markdown_rows
from harness.report.schema import DocumentError, validate

DIFFERENCE_HEADERS = ("subject", "criterion", "what", "before", "after", "why", "p")


def changes_since(previous: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Compare a run with the last accepted one.

    Args:
        previous: The parsed ``acceptance.json`` of the last accepted run.
        document: The result document of this run.

    Returns:
        The document's ``changes``: ``previous`` (commit and time), ``refused`` (why the two cannot be compared, or
        None), ``notes`` and ``differences``. A run that cannot be compared is not an error here: it must not hide the
        verdict.
    """
    provenance = previous.get("provenance", {})
    origin = {"git_commit": provenance.get("git_commit"), "time_utc": provenance.get("time_utc", "unknown")}
    try:
        validate(previous)
        comparison, refused = compare(previous, document), None
    except (DocumentError, IncomparableRunsError) as error:
        comparison, refused = Comparison((), ()), str(error)
    return {"previous": origin, "refused": refused, **comparison.as_document()}


def by_kind(differences: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the differences by kind, regressions first; kinds without any are left out."""
    groups = {str(kind): [each for each in differences if each["kind"] == kind] for kind in Kind}
    return {kind: group for kind, group in groups.items() if group}


def headline(differences: Sequence[Mapping[str, Any]]) -> str:
    """Return the numbers of differences by kind in one line."""
    counts = [f"{kind}: {len(group)}" for kind, group in by_kind(differences).items()]
    return ", ".join(counts) or "no difference"


def difference_cells(difference: Mapping[str, Any]) -> list[str]:
    """Return one difference as the cells under ``DIFFERENCE_HEADERS``."""
    p_value = difference["p_value"]
    texts = [str(difference[key]) for key in ("subject", "criterion", "name", "before", "after", "detail")]
    return [*texts, ABSENT if p_value is None else f"{p_value:.2g}"]


def changes_markdown(changes: Mapping[str, Any]) -> str:
    """Return notes and differences as Markdown, one table per kind."""
    parts = [headline(changes["differences"]) + "\n"]
    if changes["notes"]:
        parts.append("".join(f"- {escape_markdown(note)}\n" for note in changes["notes"]))
    for kind, group in by_kind(changes["differences"]).items():
        rows = [[escape_markdown(cell).replace("\n", " ") for cell in difference_cells(each)] for each in group]
        parts.append(f"### {kind}: {len(group)}\n\n{markdown_rows(DIFFERENCE_HEADERS, rows)}")
    return "\n".join(parts)
