"""Text, Markdown, HTML and figures of a result document."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.report.changes import changes_since
from harness.report.document import portable_arguments
from harness.report.html import write_report
from harness.report.table import table_markdown, table_text
from tests.unit.harness.report_documents import (
    SEPARATION,
    SPEED,
    SUBJECT,
    accepted_document,
    attachment,
    rejected_document,
)

VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}


@pytest.fixture
def document() -> dict[str, Any]:
    return rejected_document()


def test_text_has_one_row_a_criterion(document: dict[str, Any]) -> None:
    text = table_text(document)
    for id_ in (SEPARATION, SPEED):
        assert sum(line.startswith(f"| {id_} ") for line in text.splitlines()) == 1
    assert "61.12 " in text
    assert "0.983 (118 of 120)" in text
    assert "verbose_median_tokens > 80 tokens (documented: > 90 tokens)" in text
    assert "<small>: REJECTED" in text
    assert f"  NOT_RUN, a | b <c>: {SPEED}" in text
    assert text.splitlines()[-1] == "verdict: REJECTED"


def test_the_criteria_table_is_the_only_table_of_its_markdown(document: dict[str, Any]) -> None:
    lines = [line for line in table_markdown(document).splitlines() if line.startswith("|")]
    assert lines[0] == "| criterion | threshold | measured | verdict |"
    assert len(lines) == 2 + 2
    assert {line.replace("\\|", "").count("|") for line in lines} == {5}
    assert any("NOT_RUN<br>a \\| b \\<c\\>" in line for line in lines)


def test_markdown_begins_with_verdict_and_short_table(document: dict[str, Any], tmp_path: Path) -> None:
    write_report(since_accepted(document), tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    head = text.split("\n## ")[0].splitlines()
    assert head[2] == "**verdict: REJECTED**"
    assert "| \\<small\\> | REJECTED | 1 FAIL, 1 NOT_RUN |" in head
    assert head[-1].startswith("Since the last accepted run: regression: 3")
    for expected in (
        "| torch | 2.13.0 | 2.7.1 | differs |",
        "| transformers | 5.23.0 | 5.23.0 | as pinned |",
        "| flask | - | 3.1.3 | absent |",
        "| Why \\<b\\>? | a \\| b<br>c |",
        "| tests/g.py::test_answer | \\<small\\> | MATCH |  |",
        f"| {SEPARATION} | peak_memory_gib | 2.75 |",
        f"| data.sha256 | {'5f' * 32} |",
        f"| {SEPARATION} | terse_median_tokens | -22.2% | violated |",
        f"| {SEPARATION} | wrong_count | +0 | holds |",
        f"  - tests/t.py::test_{SEPARATION}: PASS",
        "Not judged, no test selected: unselected",
        "this machine cannot run it because gpu: none \\| \\<seen\\>",
        "| gpu | WARN | none \\| \\<seen\\> | get one |",
        "- git_commit: 0123abcd",
    ):
        assert expected in text.splitlines(), expected


class Page(HTMLParser):
    """Collects what the tests ask about, and refuses elements that are not nested."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        # A place where a long name may break parts no words.
        self.words.append("" if tag == "wbr" else " ")
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.words.append(" ")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def since_accepted(document: dict[str, Any], previous: dict[str, Any] | None = None) -> dict[str, Any]:
    return {**document, "changes": changes_since(previous or accepted_document(), document)}


def page_of(document: dict[str, Any], folder: Path, previous: dict[str, Any] | None = None) -> tuple[Page, str]:
    path = write_report(since_accepted(document, previous) if previous else document, folder)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page, " ".join("".join(page.words).split())


def test_html_is_self_contained_escaped_and_accessible(tmp_path: Path) -> None:
    page, _ = page_of(accepted_document(), tmp_path)
    assert page.tags.count("svg") == page.tags.count("figcaption") == 4
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "img", "link", "iframe", "small>", "c", "b"} & set(page.tags)
    references = [value for name, value in page.attributes if name in ("src", "href", "xlink:href") and value]
    assert references
    assert all(value.startswith("#") for value in references)
    assert {value[1:] for value in references} <= set(page.ids)
    labelled = [value for name, value in page.attributes if name == "aria-labelledby" and value]
    assert labelled
    assert set(labelled) <= set(page.ids)
    assert page.tags.count("table") == page.tags.count("caption")
    assert page.tags.count("th") == sum(name == "scope" for name, _ in page.attributes)
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert f"{SUBJECT}, {SEPARATION}: answer tokens" in labels
    assert [value for name, value in page.attributes if name == "role"].count("img") == 4
    assert ("lang", "en") in page.attributes


def test_html_fetches_nothing(tmp_path: Path) -> None:
    text = write_report(accepted_document(), tmp_path).read_text(encoding="utf-8")
    # What remains are the names of SVG's vocabularies, which no browser fetches.
    assert set(re.findall(r"https?://[^\"\s<]+", text)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"@import|url\((?!#)", text)


def test_html_holds_everything_that_was_recorded(document: dict[str, Any], tmp_path: Path) -> None:
    _, words = page_of(document, tmp_path, accepted_document())
    for expected in (
        "verdict: REJECTED",
        "1 FAIL, 1 NOT_RUN",
        "0.983 (118 of 120)",
        "(documented: > 90 tokens)",
        "-22.2%",
        "a | b <c>",
        f"tests/t.py::test_{SEPARATION}",
        "peak_memory_gib 2.75",
        "Why <b>?",
        "9c" * 32,
        "tests/g.py::test_answer",
        "torch 2.13.0 2.7.1 differs",
        "this machine cannot run it because gpu: none | <seen>",
        "gpu WARN none | <seen> get one",
        "Changes since the last accepted run",
        "Not judged, no test selected: unselected",
        "TERSE: n = 10, median 29, 20 to 38 tokens; VERBOSE: n = 3, median 105, 90 to 120 tokens (1 not finite)",
        "training: n = 3, first 3, last 1 nats (1 not finite)",
    ):
        assert expected in words, expected


def test_html_without_previous_run_has_no_changes(tmp_path: Path) -> None:
    page, words = page_of(accepted_document(), tmp_path)
    assert "last accepted run" not in words
    assert "changes" not in page.ids


def test_html_says_why_runs_cannot_be_compared(document: dict[str, Any], tmp_path: Path) -> None:
    _, words = page_of(document, tmp_path, {**accepted_document(), "criteria_version": "cd" * 32})
    assert "The two runs cannot be compared: the criteria differ" in words


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two ``#rrggbb`` colours as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_known() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_meet_the_contrast_of_wcag_aa(scheme: int, tmp_path: Path) -> None:
    text = write_report(accepted_document(), tmp_path).read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", text, flags=re.DOTALL)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    pairs = [(ink, ground) for ink in ("ink", "soft", "link") for ground in ("page", "panel", "stripe")]
    pairs += [(word, f"{word}-ground") for word in ("good", "bad", "open")]
    for ink, ground in pairs:
        assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for number in range(1, 5):
        assert contrast(colours[f"series-{number}"], colours["panel"]) >= 3, number


def test_inline_figures_follow_the_scheme_and_files_do_not(tmp_path: Path) -> None:
    text = write_report(accepted_document(), tmp_path).read_text(encoding="utf-8")
    inline = text[text.index("<svg") : text.rindex("</svg>")]
    assert "var(--ink)" in inline
    assert "var(--series-1)" in inline
    # Every colour is the page's own, or a part of the figure would stay dark on dark.
    assert not re.search(r"(fill|stroke): #", inline)
    [file] = (tmp_path / "figures").glob("*answer_tokens.svg")
    assert "var(--" not in file.read_text(encoding="utf-8")


def test_figures_are_valid_and_show_thresholds_of_their_unit(tmp_path: Path) -> None:
    write_report(accepted_document(), tmp_path)
    figures = {path.stem.rpartition("-")[2]: path for path in (tmp_path / "figures").iterdir()}
    assert sorted(figures) == ["answer_tokens", "empty", "latency", "loss"]
    for path in figures.values():
        assert ElementTree.parse(path).getroot().find("{http://www.w3.org/2000/svg}title") is not None
        assert f"figures/{path.name}" in (tmp_path / "report.md").read_text(encoding="utf-8")
    tokens = figures["answer_tokens"].read_text(encoding="utf-8")
    for expected in ("threshold 50 tokens", "threshold 80 tokens", "TERSE", "VERBOSE"):
        assert expected in tokens
    assert "threshold" not in figures["loss"].read_text(encoding="utf-8")


def test_a_latency_threshold_above_all_samples_is_inside_the_figure(tmp_path: Path) -> None:
    write_report(accepted_document(), tmp_path)
    [file] = (tmp_path / "figures").glob("*latency.svg")
    # An axis that reaches 30 s carries a tick label at 30.
    assert re.search(r"<text [^>]*>30</text>", file.read_text(encoding="utf-8"))


def test_latencies_are_drawn_from_zero(tmp_path: Path) -> None:
    document = accepted_document()
    document["subjects"][0]["criteria"][1]["bounds"] = []
    write_report(document, tmp_path)
    [file] = (tmp_path / "figures").glob("*latency.svg")
    # All samples lie between 1.0 and 1.1 s.
    assert re.search(r"<text [^>]*>0\.0</text>", file.read_text(encoding="utf-8"))


def test_labels_are_escaped_in_figures(tmp_path: Path) -> None:
    document = accepted_document()
    samples = [attachment("x", "series", [1.0, 2.0], "s", "<script>alert(1)</script>")]
    document["subjects"][0]["criteria"][0]["attachments"] = samples
    page, _ = page_of(document, tmp_path)
    assert "script" not in page.tags


def test_report_is_deterministic(document: dict[str, Any], tmp_path: Path) -> None:
    write_report(since_accepted(document), tmp_path / "a")
    write_report(since_accepted(document), tmp_path / "b")
    first = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.*")}
    second = {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.*")}
    assert len(first) == 5
    assert first == second


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("/root-folder/tests", "tests"),
        ("--base-model=/models/mistral", "--base-model=mistral"),
        ("/root-folder/tests/test_a.py::test_b", "tests/test_a.py::test_b"),
        ("-c/etc/pytest.ini", "-cpytest.ini"),
        ("tests/unit", "tests/unit"),
        ("-k a/b", "-k a/b"),
    ],
)
def test_arguments_lose_absolute_paths(argument: str, expected: str) -> None:
    assert portable_arguments([argument], Path("/root-folder")) == [expected]
