"""The result document as files: a self-contained HTML page, Markdown and figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.files import write_text_atomically
from harness.report import view
from harness.report.changes import DIFFERENCE_HEADERS, by_kind, difference_cells, headline
from harness.report.formatting import value_text
from harness.report.markdown import report_markdown
from harness.report.table import about, declared_lines, early_lines, grouped_reasons

if TYPE_CHECKING:
    from harness.report.figures import Figure

_TEMPLATE = "page.html.jinja"
_OPEN_ROWS = 8
# Not the full stop that ends a sentence or stands between digits.
_SEPARATOR = re.compile(r"(?<=\w)(?:[_/]|::|\.(?=[A-Za-z]))")


def write_report(document: Mapping[str, Any], folder: Path) -> Path:
    """Write ``report.html``, ``report.md`` and ``figures/<name>.svg``.

    Args:
        document: The content of ``acceptance.json``. Its ``changes`` are shown where it has them.
        folder: Where to write; made when missing.

    Returns:
        The path of ``report.html``, which is self-contained.
    """
    # Imported here: matplotlib is slow to import, and only runs with a verdict draw figures.
    from harness.report.figures import draw

    groups = [draw(subject) for subject in document["subjects"]]
    drawn = [figure for group in groups for figure in group]
    for figure in drawn:
        write_text_atomically(folder / "figures" / f"{figure.name}.svg", figure.svg)
    write_text_atomically(folder / "report.md", report_markdown(document, drawn))
    return write_text_atomically(folder / "report.html", _page(document, groups))


def _page(document: Mapping[str, Any], groups: list[list[Figure]]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["soft"] = _soft
    return environment.get_template(_TEMPLATE).render(
        document=document,
        subjects=[_subject(subject, figures) for subject, figures in zip(document["subjects"], groups, strict=True)],
        snapshots=view.snapshot_rows(document),
        packages=view.package_rows(document),
        doctor={"rows": view.doctor_rows(document), "summary": view.doctor_summary(document)},
        origin=view.origin_rows(document),
        changes=_changes(document.get("changes")),
    )


def _soft(text: object) -> str:
    """Return escaped text whose long names may break after their separators instead of anywhere."""
    import markupsafe

    return markupsafe.Markup(_SEPARATOR.sub(r"\g<0><wbr>", str(markupsafe.escape(text))))


def _subject(subject: Mapping[str, Any], figures: list[Figure]) -> dict[str, Any]:
    return {
        "name": subject["name"],
        "decision": subject["decision"],
        "about": about(subject),
        "counts": view.outcome_counts(subject),
        "reasons": [reason.strip() for reason in grouped_reasons(subject)],
        "declared": [*declared_lines(subject), *early_lines(subject)],
        "out_of_scope": subject["out_of_scope"],
        "key_bounds": view.key_bounds(subject),
        "criteria": [_criterion(criterion) for criterion in subject["criteria"]],
        "figures": figures,
        "memory": view.memory_rows(subject),
        "identity": view.identity_rows(subject),
        "tables": [
            {**table, "criterion": criterion["id"], "is_open": len(table["rows"]) <= _OPEN_ROWS}
            for criterion in subject["criteria"]
            for table in criterion["tables"]
        ],
    }


def _criterion(criterion: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{key: criterion[key] for key in ("id", "sentence", "source", "outcome", "reason", "documented", "tests")},
        "bounds": view.bound_rows(criterion),
        "measurements": [(name, value_text(value)) for name, value in criterion["measurements"].items()],
    }


def _changes(changes: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if changes is None:
        return None
    groups = by_kind(changes["differences"])
    return {
        **changes,
        "headline": "not comparable" if changes["refused"] else headline(changes["differences"]),
        "headers": DIFFERENCE_HEADERS,
        "groups": {kind: [difference_cells(difference) for difference in group] for kind, group in groups.items()},
    }
