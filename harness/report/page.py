"""The result document as files: a page that needs no other file, Markdown and figures."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.files import write_text_atomically
from harness.report.table import HEADERS, grouped_reasons, markdown, provenance_rows, row_cells, table_markdown

if TYPE_CHECKING:
    from harness.report.figures import Figure

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


def write_report(document: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.html`, `report.md` and `figures/<name>.svg`.

    Args:
        document: The content of `acceptance.json`.
        folder: Where to write; made when missing.

    Returns:
        The path of `report.html`, which needs no other file.
    """
    # matplotlib takes longer to import than most test runs take, and only runs with a verdict draw.
    from harness.report.figures import draw

    figures = [draw(subject) for subject in document["subjects"]]
    drawn = [figure for group in figures for figure in group]
    for figure in drawn:
        write_text_atomically(folder / "figures" / f"{figure.name}.svg", figure.svg)
    text = table_markdown(document)
    if drawn:
        links = [f"![{markdown(figure.title)}](figures/{figure.name}.svg)" for figure in drawn]
        text += "\n## Figures\n\n" + "\n\n".join(links) + "\n"
    write_text_atomically(folder / "report.md", text)
    return write_text_atomically(folder / "report.html", _page(document, figures))


def _page(document: Mapping[str, Any], figures: Sequence[Sequence[Figure]]) -> str:
    decision = document["decision"]
    body = [f'<h1>Acceptance report</h1><p>verdict: <strong class="{decision}">{decision}</strong></p>']
    for subject, drawn in zip(document["subjects"], figures, strict=True):
        body.append(_subject(subject))
        body += [_figure(figure) for figure in drawn]
    if document["subjects_not_selected"]:
        names = ", ".join(document["subjects_not_selected"])
        body.append(f"<p>Not judged, no test selected: {html.escape(names)}</p>")
    rows = [(key, html.escape(value)) for key, value in provenance_rows(document)]
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
        id_, *cells = (html.escape(cell).replace("\n", "<br>") for cell in row_cells(criterion))
        cells[-1] = f'<span class="{criterion["outcome"]}">{cells[-1]}</span>'
        sentence, source = html.escape(criterion["sentence"]), html.escape(criterion["source"])
        rows.append((f"{id_}<br>{sentence}<br><small>{source}</small>", *cells))
    weights = "learned" if subject["learned"] else "random"
    reasons = "".join(f"<li>{html.escape(reason.strip())}</li>" for reason in grouped_reasons(subject))
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
