"""Text, Markdown, HTML and figures of a result document."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.criteria import DOCUMENTED
from harness.report.document import build, portable_arguments
from harness.report.page import write_report
from harness.report.table import table_markdown, table_text
from harness.verdict import CriterionResult, Outcome, Subject, judge

SEPARATION = "style.token_separation"


def attachment(name: str, kind: str, values: list[float], unit: str, label: str) -> dict[str, object]:
    return {"name": name, "kind": kind, "values": values, "unit": unit, "label": label}


@pytest.fixture
def document(passing: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One subject: a violated separation, a skipped speed, figures of every kind, and text to escape."""
    subject = Subject("<small>", learned=True)
    passing[SEPARATION]["terse_median_tokens"] = 61.123456
    results = {id_: judge(DOCUMENTED[id_], subject, measures) for id_, measures in passing.items()}
    failed = results[SEPARATION]
    samples = (
        attachment("answer_tokens", "distribution", [30.0, 40.0, 61.0], "tokens", "TERSE"),
        attachment("answer_tokens", "distribution", [90.0, 120.0, float("inf")], "tokens", "VERBOSE"),
        attachment("loss", "series", [3.0, float("nan"), 1.0], "nats", "training"),
        attachment("latency", "latency", [1.0, 2.0], "s", "TERSE"),
        attachment("empty", "distribution", [float("nan")], "tokens", "TERSE"),
    )
    results[SEPARATION] = CriterionResult(
        SEPARATION,
        failed.outcome,
        failed.reason,
        failed.measurements,
        failed.bounds,
        failed.violated,
        samples,
    )
    speed = "style.generation_speed"
    skipped = CriterionResult(speed, Outcome.NOT_RUN, "a | b <c>", bounds=DOCUMENTED[speed].bounds)
    results[speed] = skipped
    tests = [(f"test_{id_}", result) for id_, result in results.items()]
    return build({subject: tests}, ["unselected"], {"git_commit": None, "packages": {"numpy": "2"}}, ["-q"])


def test_text_has_one_row_a_criterion(document: dict[str, Any]) -> None:
    text = table_text(document)
    for id_ in DOCUMENTED:
        assert sum(line.startswith(f"| {id_} ") for line in text.splitlines()) == 1
    assert "61.12 " in text.replace("measured 61.1235", "")
    assert "terse_median_tokens < 50 tokens" in text
    assert "<small>: REJECTED" in text
    assert "  NOT_RUN, a | b <c>: style.generation_speed" in text
    assert text.splitlines()[-1] == "verdict: REJECTED"


def test_markdown_table_is_well_formed(document: dict[str, Any]) -> None:
    lines = [line for line in table_markdown(document).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(DOCUMENTED)
    assert {line.replace("\\|", "").count("|") for line in lines} == {5}
    assert any("NOT_RUN<br>a \\| b \\<c\\>" in line for line in lines)


class Page(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id" and value]


def test_html_is_self_contained_escaped_and_accessible(document: dict[str, Any], tmp_path: Path) -> None:
    path = write_report(document, tmp_path)
    assert path == tmp_path / "report.html"
    page = Page()
    text = path.read_text(encoding="utf-8")
    page.feed(text)
    assert page.tags.count("svg") == page.tags.count("figcaption") == 4
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "img", "link", "small>", "c"} & set(page.tags)
    assert "&lt;small&gt;" in text
    references = [value for name, value in page.attributes if name in ("src", "href", "xlink:href") and value]
    assert all(value.startswith("#") for value in references)
    assert {value[1:] for value in references} <= set(page.ids)
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert f"<small>, {SEPARATION}: answer tokens" in labels
    assert ("lang", "en") in page.attributes


def test_figures_are_valid_and_show_thresholds(document: dict[str, Any], tmp_path: Path) -> None:
    write_report(document, tmp_path)
    figures = {path.stem.rpartition("-")[2]: path for path in (tmp_path / "figures").iterdir()}
    assert sorted(figures) == ["answer_tokens", "empty", "latency", "loss"]
    for path in figures.values():
        assert ElementTree.parse(path).getroot().find("{http://www.w3.org/2000/svg}title") is not None
        assert f"figures/{path.name}" in (tmp_path / "report.md").read_text(encoding="utf-8")
    tokens = figures["answer_tokens"].read_text(encoding="utf-8")
    for expected in ("threshold 50 tokens", "threshold 80 tokens", "TERSE", "VERBOSE"):
        assert expected in tokens
    assert "threshold" not in figures["loss"].read_text(encoding="utf-8")


def test_report_is_deterministic(document: dict[str, Any], tmp_path: Path) -> None:
    write_report(document, tmp_path / "a")
    write_report(document, tmp_path / "b")
    first = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.*")}
    second = {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.*")}
    assert len(first) == 6
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
