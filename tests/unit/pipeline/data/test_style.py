from __future__ import annotations

import pytest

from pipeline.config import Style
from pipeline.data.style import detect_style, find_keywords, inject_token


@pytest.mark.parametrize(
    ("prompt", "style"),
    [
        ("Briefly, what is TCP?", Style.TERSE),
        ("BE CONCISE: what is TCP?", Style.TERSE),
        ("A detailed answer please", Style.VERBOSE),
        ("Write a Well-Structured answer", Style.VERBOSE),
        ("What is TCP?", Style.TERSE),
        ("A detailed but concise answer", Style.TERSE),
    ],
)
def test_style_detection_follows_the_documented_rule(prompt: str, style: Style) -> None:
    assert detect_style(prompt) is style


def test_the_token_and_a_newline_go_in_front() -> None:
    assert inject_token("Why?", Style.VERBOSE) == "<STYLE_VERBOSE>\nWhy?"


def test_keywords_are_found_by_the_style_they_ask_for() -> None:
    assert find_keywords("Concisely, then in DETAILED form") == {
        Style.TERSE: ["concise"],
        Style.VERBOSE: ["detailed"],
    }
    assert find_keywords("Why?") == {}
