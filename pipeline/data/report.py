"""The report of a data check: JSON, Markdown, and a figure of answer lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.formats import DataFile
from pipeline.data.style import TERSE_LIMIT_TOKENS, VERBOSE_FLOOR_TOKENS
from pipeline.files import sha256_of, write_json, write_text
from pipeline.plotting import TERSE_COLOUR, VERBOSE_COLOUR, to_svg

_COLOURS = {"terse": TERSE_COLOUR, "verbose": VERBOSE_COLOUR}
_BIN_TOKENS = 5


def describe_files(sources: Sequence[DataFile]) -> list[dict[str, str]]:
    """Name, recognised format and SHA-256 of each file."""
    return [
        {"name": source.path.name, "format": source.format.name, "sha256": sha256_of(source.path)} for source in sources
    ]


def is_clean(document: Mapping[str, Any]) -> bool:
    """Whether no property check failed."""
    return all(finding["verdict"] != "FAIL" for finding in document["findings"])


def to_markdown(document: Mapping[str, Any]) -> str:
    """Render a check as Markdown: files, property checks with their violations, composition and lengths."""
    lines = [
        f"**{document['examples']} examples** against {document['held_out_questions']} held-out questions: "
        + ("no weakness found" if is_clean(document) else "weaknesses found"),
        "",
        *(f"- {entry['name']}: {entry['format']}, SHA-256 {entry['sha256']}" for entry in document["files"]),
        "",
        *_table(
            ("property", "asked for", "measured", "verdict"),
            [(f["name"], f["limit"], f["measured"], f["verdict"]) for f in document["findings"]],
        ),
        *(f"- {f['name']}: {place}" for f in document["findings"] if f["verdict"] == "FAIL" for place in f["places"]),
        "",
        *_table(
            ("tokenizer", "style", "answers", "shortest", "5 %", "median", "95 %", "longest"),
            [row for name, styles in document["answer_tokens"].items() for row in _length_rows(name, styles)],
        ),
        "",
        *_table(
            ("field", "terse", "verbose", "held out"),
            [
                (name, counts.get("terse", 0), counts.get("verbose", 0), document["held_out_subjects"].get(name, 0))
                for name, counts in document["subjects"].items()
            ],
        ),
        "",
        "Question forms: " + ", ".join(f"{name} {count}" for name, count in document["question_forms"].items()),
    ]
    return "\n".join(lines) + "\n"


def write_report(document: Mapping[str, Any], folder: Path) -> None:
    """Write ``check.json``, ``check.md`` and ``answer_tokens.svg``, each atomically."""
    write_json(folder / "check.json", document)
    write_text(folder / "check.md", to_markdown(document))
    write_text(folder / "answer_tokens.svg", draw_lengths(document))


def draw_lengths(document: Mapping[str, Any]) -> str:
    """Draw the answer lengths of both styles under each tokenizer as reproducible SVG."""
    tokenizers = document["answer_tokens"]
    longest = max(int(tokens) for styles in tokenizers.values() for counts in styles.values() for tokens in counts)

    def draw(figure: Any) -> None:
        panels = figure.subplots(len(tokenizers), sharex=True, squeeze=False)[:, 0]
        for axes, (name, styles) in zip(panels, tokenizers.items(), strict=True):
            for style, counts in styles.items():
                axes.hist(
                    [int(tokens) for tokens in counts],
                    bins=range(0, longest + 2 * _BIN_TOKENS, _BIN_TOKENS),
                    weights=list(counts.values()),
                    color=_COLOURS[style],
                    alpha=0.7,
                    label=style,
                )
            for threshold in (TERSE_LIMIT_TOKENS, VERBOSE_FLOOR_TOKENS):
                axes.axvline(threshold, color="#444444", linestyle="--")
            axes.set(title=f"{name}: answer lengths; dashed, the criteria's bounds", ylabel="answers")
            axes.legend()
        panels[-1].set_xlabel("tokens")

    title = "Answer lengths of the training data in tokens"
    return to_svg(draw, title=title, salt="answer_tokens", size=(7.0, 2.6 * len(tokenizers)))


def _length_rows(name: str, styles: Mapping[str, Mapping[Any, int]]) -> list[tuple[object, ...]]:
    rows = []
    for style, counts in styles.items():
        ordered = sorted(int(tokens) for tokens, count in counts.items() for _ in range(count))
        at = [ordered[round(share * (len(ordered) - 1))] for share in (0, 0.05, 0.5, 0.95, 1)]
        rows.append((name, style, len(ordered), *at))
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    def cell(value: object) -> str:
        return str(value).replace("|", r"\|").replace("\n", " ")

    return [f"| {' | '.join(map(cell, row))} |" for row in (head, ["---"] * len(head), *rows)]
