"""The complete report as Markdown, the short table first, as a CI server shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.report import view
from harness.report.changes import changes_markdown, headline
from harness.report.formatting import escape_markdown, markdown_rows, value_text
from harness.report.table import table_markdown

if TYPE_CHECKING:
    from harness.report.figures import Figure


def report_markdown(document: Mapping[str, Any], figures: Sequence[Figure]) -> str:
    """Return the content of ``report.md``.

    Args:
        document: The content of ``acceptance.json``.
        figures: The figures beside it, in ``figures/``.
    """
    links = [
        f"![{escape_markdown(figure.title)}](figures/{figure.name}.svg)\n\n{figure.summary}\n" for figure in figures
    ]
    parts = [
        _short(document),
        *(_keys(subject) for subject in document["subjects"]),
        _section("Figures", "\n".join(links)),
        *(_samples(subject) for subject in document["subjects"]),
        table_markdown(document),
        _section("Changes since the last accepted run", _changes(document)),
        *(_subject_sections(subject) for subject in document["subjects"]),
        _section("Snapshots", _table(("test", "subject", "state", "detail"), view.snapshot_rows(document))),
        _section(
            "Packages", _table(("package", "version here", "golden pin", "comparison"), view.package_rows(document))
        ),
        _section("Doctor", _doctor(document)),
        _section(
            "Provenance",
            "".join(f"- {escape_markdown(k)}: {escape_markdown(v)}\n" for k, v in view.origin_rows(document)),
        ),
    ]
    return "\n".join(part for part in parts if part)


def _short(document: Mapping[str, Any]) -> str:
    rows = [
        (
            subject["name"],
            subject["decision"],
            ", ".join(f"{count} {outcome}" for outcome, count in view.outcome_counts(subject).items()),
        )
        for subject in document["subjects"]
    ]
    table = _table(("subject", "verdict", "criteria"), rows)
    changes = document.get("changes")
    since = ""
    if changes is not None:
        outcome = "not comparable" if changes["refused"] else headline(changes["differences"])
        since = f"\nSince the last accepted run: {outcome}.\n"
    return f"# Acceptance report\n\n**verdict: {document['decision']}**\n\n{table}{since}"


def _changes(document: Mapping[str, Any]) -> str:
    changes = document.get("changes")
    if changes is None:
        return ""
    origin = f"Against commit {changes['previous']['git_commit'] or 'unknown'}, {changes['previous']['time_utc']}.\n\n"
    if changes["refused"]:
        return origin + f"The two runs cannot be compared: {escape_markdown(changes['refused'])}\n"
    return origin + changes_markdown(changes)


def _doctor(document: Mapping[str, Any]) -> str:
    rows = view.doctor_rows(document)
    if not rows:
        return ""
    return f"{escape_markdown(view.doctor_summary(document))}\n\n" + _folded(
        "checks", _table(("check", "level", "detail", "remedy"), rows)
    )


def _keys(subject: Mapping[str, Any]) -> str:
    title = "Closest to their limits" if subject["decision"] == "ACCEPTED" else "What decided"
    columns = ("criterion", "measure", "limit", "value", "margin", "state")
    rows = [[row[column] for column in columns] for row in view.key_bounds(subject)]
    return _section(f"{title}: {escape_markdown(subject['name'])}", _table(columns, rows))


def _samples(subject: Mapping[str, Any]) -> str:
    tables = [table for criterion in subject["criteria"] for table in criterion["tables"]]
    return "\n".join(
        _section(
            f"{escape_markdown(table['name'])}: {escape_markdown(subject['name'])}",
            _folded(f"rows: {len(table['rows'])}", _table(table["columns"], table["rows"])),
        )
        for table in tables
    )


def _subject_sections(subject: Mapping[str, Any]) -> str:
    name = escape_markdown(subject["name"])
    parts = [
        _section(
            f"Margins: {name}",
            _folded(
                "distances to the thresholds", _table(("criterion", "measure", "margin", "bound"), _margins(subject))
            ),
        ),
        _section(f"Memory: {name}", _table(("criterion", "measure", "value"), view.memory_rows(subject))),
        _section(f"Identity: {name}", _table(("what", "value"), view.identity_rows(subject))),
        _section(f"Evidence: {name}", _folded("measurements and tests", _evidence(subject))),
    ]
    return "\n".join(part for part in parts if part)


def _evidence(subject: Mapping[str, Any]) -> str:
    lines = []
    for criterion in subject["criteria"]:
        measured = [f"{name} {value_text(value)}" for name, value in criterion["measurements"].items()]
        lines.append(f"- {criterion['id']}: {escape_markdown('; '.join(measured) or 'nothing recorded')}\n")
        lines += [f"  - {escape_markdown(test['nodeid'])}: {test['outcome']}\n" for test in criterion["tests"]]
    return "".join(lines)


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n</details>\n"


def _margins(subject: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (criterion["id"], row["measure"], row["margin"], row["state"])
        for criterion in subject["criteria"]
        for row in view.bound_rows(criterion)
    ]


def _table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = [[escape_markdown(cell).replace("\n", "<br>") for cell in row] for row in rows]
    return markdown_rows([escape_markdown(header) for header in headers], cells) if cells else ""


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""
