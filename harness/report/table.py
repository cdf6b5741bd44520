"""The tables of criteria, as text for the terminal and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from harness.report.formatting import ABSENT, escape_markdown, markdown_rows, value_text
from harness.sequential import ASKED, PLANNED

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
        parts += [f"  {line}" for line in [*scope_lines(subject), *declared_lines(subject), *early_lines(subject)]]
    if document["subjects_not_selected"]:
        parts.append(f"not judged, no test selected: {', '.join(document['subjects_not_selected'])}")
    parts.append(f"verdict: {document['decision']}")
    return "\n".join(parts)


def table_markdown(document: Mapping[str, Any]) -> str:
    """Return each subject's verdict, table of criteria and grouped reasons as Markdown; it holds no other table."""
    parts = []
    for subject in document["subjects"]:
        rows = [
            [cell.replace("\n", "<br>") for cell in map(escape_markdown, row_cells(each))]
            for each in subject["criteria"]
        ]
        parts.append(f"## {escape_markdown(subject['name'])}: {subject['decision']}\n\n{markdown_rows(HEADERS, rows)}")
        if lines := [
            *grouped_reasons(subject),
            *scope_lines(subject),
            *declared_lines(subject),
            *early_lines(subject),
        ]:
            parts.append("".join(f"- {escape_markdown(line.strip())}\n" for line in lines))
    if document["subjects_not_selected"]:
        names = ", ".join(document["subjects_not_selected"])
        parts.append(f"Not judged, no test selected: {escape_markdown(names)}\n")
    return "\n".join(parts)


def row_cells(criterion: Mapping[str, Any]) -> list[str]:
    """Return one criterion as the cells under ``HEADERS``."""
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
    return value_text(criterion["measurements"][bound["measure"]]) if bound["recorded"] else ABSENT


def about(subject: Mapping[str, Any]) -> str:
    """Return what kind of subject it is and how it was judged."""
    weights = "learned" if subject["learned"] else "random"
    return "; ".join([f"{weights} weights, judged through the {subject['access']}", *scope_lines(subject)])


def scope_lines(subject: Mapping[str, Any]) -> list[str]:
    """Return how and what a subject was asked; nothing where there is nothing to say."""
    scope = subject.get("scope")
    return [f"scope: {scope}"] if scope else []


def declared_lines(subject: Mapping[str, Any]) -> list[str]:
    """Return what the subject declares out of scope, one line for each reason; what it needs no model for."""
    groups: dict[str, list[str]] = {}
    for name, reason in subject.get("out_of_scope_reasons", {}).items():
        groups.setdefault(reason, []).append(name)
    return [f"out of scope: {', '.join(names)} ({reason})" for reason, names in groups.items()]


def early_lines(subject: Mapping[str, Any]) -> list[str]:
    """Return how many answers each plan of early rejection used, what it expected, and how often it is wrong."""
    lines = []
    for criterion in subject["criteria"]:
        plan, measured = criterion.get("early_rejection"), criterion["measurements"]
        if plan is None or "lost_acceptance_at_most" not in plan:
            continue
        lines.append(
            f"{criterion['id']}, early rejection by a plan: {measured.get(ASKED)} of {measured[PLANNED]} answers asked;"
            f" expected: {plan['expected_answers_half_broken']:g} of a half broken model, rejected after"
            f" {plan['median_answers_half_broken']} in the median, {plan['expected_answers_at_good_share']:g} of one"
            f" with {plan['good_share']:.0%} good answers, which is rejected early with probability"
            f" {plan['false_rejection_at_good_share']:.1g}; a model that the full sample would accept:"
            f" at most {plan['lost_acceptance_at_most']:.1g}"
        )
    return lines


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
