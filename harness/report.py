"""The result document as text, Markdown and HTML."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from harness.files import write_text_atomically

if TYPE_CHECKING:
    from harness.figures import Figure

HEADERS = ("criterion", "threshold", "measured", "verdict")
_REASON_COLUMNS = 44

_STYLE_SHEET = """
body { background: #fff; color: #1a1a1a; font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
       max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; width: 100% }
th, td { border: 1px solid #bbb; padding: .4rem .6rem; text-align: left; vertical-align: top }
th { background: #f0f0f0 }
caption { font-weight: 600; padding: .4rem 0; text-align: left }
.PASS, .ACCEPTED { color: #05603a } .FAIL, .REJECTED { color: #a50e0e }
.NOT_RUN, .NOT_APPLICABLE, .INCOMPLETE { color: #6b4a00 }
figure { margin: 1.5rem 0 } figure svg { height: auto; max-width: 100% }
"""


def table_text(document: Mapping[str, Any]) -> str:
    """Return the tables, each subject's verdict with its grouped reasons, and the overall verdict."""
    parts = []
    for subject in document["subjects"]:
        rows = [_row(criterion) for criterion in subject["criteria"]]
        for row in rows:
            row[3] = "\n".join(textwrap.fill(part, _REASON_COLUMNS) for part in row[3].split("\n"))
        # The cells are formatted already: tabulate would read "200" as a number and format it again.
        table = tabulate(rows, headers=HEADERS, tablefmt="grid", disable_numparse=True)
        parts += [f"subject: {subject['name']}", table, f"{subject['name']}: {subject['decision']}"]
        parts += _grouped_reasons(subject)
    if document["subjects_not_selected"]:
        parts.append(f"not judged, no test selected: {', '.join(document['subjects_not_selected'])}")
    parts.append(f"verdict: {document['decision']}")
    return "\n".join(parts)


def table_markdown(document: Mapping[str, Any]) -> str:
    """Return the verdicts and one table per subject as Markdown."""
    lines = ["# Acceptance report", "", f"**verdict: {document['decision']}**"]
    for subject in document["subjects"]:
        lines += ["", f"## {_markdown(subject['name'])}: {subject['decision']}", ""]
        lines += [f"| {' | '.join(HEADERS)} |", "|---" * len(HEADERS) + "|"]
        for criterion in subject["criteria"]:
            cells = [_markdown(cell).replace("\n", "<br>") for cell in _row(criterion)]
            lines.append(f"| {' | '.join(cells)} |")
        reasons = _grouped_reasons(subject)
        lines += ["", *(f"- {_markdown(reason.strip())}" for reason in reasons)] if reasons else []
    if document["subjects_not_selected"]:
        names = ", ".join(document["subjects_not_selected"])
        lines += ["", f"Not judged, no test selected: {_markdown(names)}"]
    lines += ["", "## Provenance", ""]
    lines += [f"- {_markdown(key)}: {_markdown(value)}" for key, value in _provenance(document)]
    return "\n".join(lines) + "\n"


def write_report(document: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.html`, `report.md` and `figures/<name>.svg`.

    Args:
        document: The content of `acceptance.json`.
        folder: Where to write; made when missing.

    Returns:
        The path of `report.html`, which needs no other file.
    """
    # matplotlib takes longer to import than most test runs take, and only runs with a verdict draw.
    from harness.figures import draw

    figures = [draw(subject) for subject in document["subjects"]]
    drawn = [figure for group in figures for figure in group]
    for figure in drawn:
        write_text_atomically(folder / "figures" / f"{figure.name}.svg", figure.svg)
    markdown = table_markdown(document)
    if drawn:
        links = [f"![{_markdown(figure.title)}](figures/{figure.name}.svg)" for figure in drawn]
        markdown += "\n## Figures\n\n" + "\n\n".join(links) + "\n"
    write_text_atomically(folder / "report.md", markdown)
    return write_text_atomically(folder / "report.html", _page(document, figures))


def _row(criterion: Mapping[str, Any]) -> list[str]:
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


def _grouped_reasons(subject: Mapping[str, Any]) -> list[str]:
    if subject["decision"] == "ACCEPTED":
        return []
    groups: dict[str, list[str]] = {}
    for criterion in subject["criteria"]:
        if criterion["outcome"] != "PASS":
            reason = criterion["reason"]
            groups.setdefault(f"{criterion['outcome']}, {reason}", []).append(criterion["id"])
    return [f"  {reason}: {', '.join(ids)}" for reason, ids in groups.items()]


def _provenance(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in document["provenance"].items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {version}" for name, version in value.items() if version is not None)
        rows.append((key, "unknown" if value is None else str(value)))
    return [*rows, ("pytest_arguments", " ".join(document["pytest_arguments"]) or "none")]


def _markdown(text: object) -> str:
    # Underscores inside words are literal in Markdown; these are not.
    escaped = str(text).replace("\\", "\\\\")
    for character in "|<>*`[]":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped


def _page(document: Mapping[str, Any], figures: Sequence[Sequence[Figure]]) -> str:
    decision = document["decision"]
    body = [f'<h1>Acceptance report</h1><p>verdict: <strong class="{decision}">{decision}</strong></p>']
    for subject, drawn in zip(document["subjects"], figures, strict=True):
        body.append(_subject(subject))
        body += [_figure(figure) for figure in drawn]
    if document["subjects_not_selected"]:
        names = ", ".join(document["subjects_not_selected"])
        body.append(f"<p>Not judged, no test selected: {html.escape(names)}</p>")
    rows = [(key, html.escape(value)) for key, value in _provenance(document)]
    body.append(_table("Provenance", ("property", "value"), rows))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Acceptance report: {decision}</title>\n<style>{_STYLE_SHEET}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(body)}\n</main>\n</body>\n</html>\n"
    )


def _subject(subject: Mapping[str, Any]) -> str:
    name, decision = html.escape(subject["name"]), subject["decision"]
    rows = []
    for criterion in subject["criteria"]:
        id_, *cells = (html.escape(cell).replace("\n", "<br>") for cell in _row(criterion))
        cells[-1] = f'<span class="{criterion["outcome"]}">{cells[-1]}</span>'
        sentence, source = html.escape(criterion["sentence"]), html.escape(criterion["source"])
        rows.append((f"{id_}<br>{sentence}<br><small>{source}</small>", *cells))
    weights = "learned" if subject["learned"] else "random"
    reasons = "".join(f"<li>{html.escape(reason.strip())}</li>" for reason in _grouped_reasons(subject))
    return (
        f'<h2>{name}: <span class="{decision}">{decision}</span></h2>\n<p>Weights: {weights}.</p>\n'
        + (f"<ul>{reasons}</ul>\n" if reasons else "")
        + _table(f"Criteria of {name}", HEADERS, rows)
    )


def _table(caption: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{header}</th>' for header in headers)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{chr(10).join(lines)}\n</tbody></table>"
    )


def _figure(figure: Figure) -> str:
    title = html.escape(figure.title)
    return (
        f'<figure><div role="img" aria-label="{title}">\n{figure.inline_svg}</div>'
        f"<figcaption>{title}</figcaption></figure>"
    )
