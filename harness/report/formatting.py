"""How the report formats values, margins, nested settings and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ABSENT = "-"


def is_proportion(value: object) -> bool:
    """Return whether a measurement of the result document is a ``Proportion``."""
    return isinstance(value, Mapping) and "trials" in value


def value_text(value: Any) -> str:
    """Return a measurement as text: four significant digits, a proportion as ``0.983 (118 of 120)``."""
    if is_proportion(value):
        return f"{value['share']:.3g} ({value['successes']} of {value['trials']})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def margin_text(bound: Mapping[str, Any]) -> str:
    """Return the signed distance of a bound's measure to its threshold: in percent, absolute where that is 0."""
    if bound["margin"] is None:
        return ABSENT
    # A zero has a sign in floating point, which would show a met equality as negative.
    margin = bound["margin"] or 0.0
    return f"{margin:+.4g}" if bound["threshold"] == 0 else f"{margin:+.1%}"


def flat_pairs(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as pairs of dotted name and text; None is ``unknown``."""
    pairs = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            pairs += flat_pairs(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            pairs.append((f"{prefix}{key}", ", ".join(map(str, value))))
        else:
            pairs.append((f"{prefix}{key}", "unknown" if value is None else str(value)))
    return pairs


def markdown_rows(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of headers and cells that are escaped already."""
    lines = [f"| {' | '.join(headers)} |", "|---" * len(headers) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def escape_markdown(text: object) -> str:
    """Return text with everything escaped that Markdown would read as markup."""
    # Underscores inside words are literal in Markdown; these characters are not.
    escaped = str(text).replace("\\", "\\\\")
    for character in "|<>*`[]":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped


def access_text(subject: Mapping[str, Any]) -> str:
    """Return how a subject was reached, and what it declares out of scope; earlier versions declare nothing."""
    return ", without ".join([str(subject["access"]), *sorted(subject.get("out_of_scope_reasons", {}))])


def comparison_notes(before: Mapping[str, Any], after: Mapping[str, Any], obstacle: str | None) -> list[str]:
    """Return what a reader of a comparison should know: why times were left out, and that the questions differ."""
    notes = [f"Times and rates were not compared: {obstacle}."] if obstacle else []
    first, second = (asked_questions(document) for document in (before, after))
    if first and second and first["sha256"] != second["sha256"]:
        named = " and ".join(f"{asked['count']} of {asked['file']}" for asked in (first, second))
        notes.append(f"The runs were asked different questions ({named}), which may be all that differs.")
    return notes


def asked_questions(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return file, SHA-256 and number of the questions; empty where earlier versions or other projects name none."""
    asked = document["provenance"].get("questions")
    return asked if isinstance(asked, Mapping) and asked.keys() >= {"file", "sha256", "count"} else {}
