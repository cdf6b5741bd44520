"""The result document as text and Markdown tables."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

HEADERS = ("criterion", "threshold", "measured", "verdict")
_REASON_COLUMNS = 44


def table_text(document: Mapping[str, Any]) -> str:
    """Return the tables, each subject's verdict with its grouped reasons, and the overall verdict."""
    parts = []
    for subject in document["subjects"]:
        rows = [row_cells(criterion) for criterion in subject["criteria"]]
        for row in rows:
            row[3] = "\n".join(textwrap.fill(part, _REASON_COLUMNS) for part in row[3].split("\n"))
        # The cells are formatted already: tabulate would read "200" as a number and format it again.
        table = tabulate(rows, headers=HEADERS, tablefmt="grid", disable_numparse=True)
        parts += [f"subject: {subject['name']}", table, f"{subject['name']}: {subject['decision']}"]
        parts += grouped_reasons(subject)
    if document["subjects_not_selected"]:
        parts.append(f"not judged, no test selected: {', '.join(document['subjects_not_selected'])}")
    parts.append(f"verdict: {document['decision']}")
    return "\n".join(parts)


def table_markdown(document: Mapping[str, Any]) -> str:
    """Return the verdicts and one table per subject as Markdown."""
    lines = ["# Acceptance report", "", f"**verdict: {document['decision']}**"]
    for subject in document["subjects"]:
        lines += ["", f"## {markdown(subject['name'])}: {subject['decision']}", ""]
        lines += [f"| {' | '.join(HEADERS)} |", "|---" * len(HEADERS) + "|"]
        for criterion in subject["criteria"]:
            cells = [markdown(cell).replace("\n", "<br>") for cell in row_cells(criterion)]
            lines.append(f"| {' | '.join(cells)} |")
        reasons = grouped_reasons(subject)
        lines += ["", *(f"- {markdown(reason.strip())}" for reason in reasons)] if reasons else []
    if document["subjects_not_selected"]:
        names = ", ".join(document["subjects_not_selected"])
        lines += ["", f"Not judged, no test selected: {markdown(names)}"]
    lines += ["", "## Provenance", ""]
    lines += [f"- {markdown(key)}: {markdown(value)}" for key, value in provenance_rows(document)]
    return "\n".join(lines) + "\n"


def row_cells(criterion: Mapping[str, Any]) -> list[str]:
    """Return one criterion as the cells under `HEADERS`."""
    bounds = criterion["bounds"]
    verdict = criterion["outcome"]
    if criterion["reason"]:
        verdict += f"\n{criterion['reason']}"
    return [
        criterion["id"],
        "\n".join(_limit(bound) for bound in bounds),
        "\n".join(_measured(criterion, bound) for bound in bounds),
        verdict,
    ]


def _limit(bound: Mapping[str, Any]) -> str:
    documented = f" (documented: {bound['documented_limit']})" if bound["documented_limit"] else ""
    return f"{bound['measure']} {bound['limit']}{documented}"


def _measured(criterion: Mapping[str, Any], bound: Mapping[str, Any]) -> str:
    return _number(criterion["measurements"][bound["measure"]]) if bound["recorded"] else "-"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def grouped_reasons(subject: Mapping[str, Any]) -> list[str]:
    """Return why a subject is not accepted, one line per reason with the criteria that share it."""
    if subject["decision"] == "ACCEPTED":
        return []
    groups: dict[str, list[str]] = {}
    for criterion in subject["criteria"]:
        if criterion["outcome"] != "PASS":
            reason = criterion["reason"]
            groups.setdefault(f"{criterion['outcome']}, {reason}", []).append(criterion["id"])
    return [f"  {reason}: {', '.join(ids)}" for reason, ids in groups.items()]


def provenance_rows(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the origin of the results as pairs of property and value."""
    rows = []
    for key, value in document["provenance"].items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {version}" for name, version in value.items() if version is not None)
        rows.append((key, "unknown" if value is None else str(value)))
    return [*rows, ("pytest_arguments", " ".join(document["pytest_arguments"]) or "none")]


def markdown(text: object) -> str:
    """Return text with what Markdown would read as markup escaped."""
    # Underscores inside words are literal in Markdown; these are not.
    escaped = str(text).replace("\\", "\\\\")
    for character in "|<>*`[]":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped
