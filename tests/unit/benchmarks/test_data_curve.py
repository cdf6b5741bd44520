from __future__ import annotations

from typing import Any

import pytest

from benchmarks.data_curve import choose, draw, summarise, to_markdown


def answers(good: int, *, style: str, cut: int = 0) -> list[dict[str, Any]]:
    """120 answers: ``good`` in bound, ``cut`` of the right length that did not end by themselves, the others wrong."""
    right, wrong = (20, 60) if style == "terse" else (140, 70)
    rows = [{"tokens": right, "finish_reason": "eos"}] * good
    rows += [{"tokens": right, "finish_reason": "length"}] * cut
    return rows + [{"tokens": wrong, "finish_reason": "eos"}] * (120 - good - cut)


def point(examples: int, terse: int, verbose: int) -> dict[str, Any]:
    asked = {"terse": answers(terse, style="terse"), "verbose": answers(verbose, style="verbose")}
    return {"examples": examples, "training_s": 60.0 * examples, "answers": asked, **summarise(asked)}


def test_an_answer_counts_only_if_its_length_fits_and_it_ended_by_itself() -> None:
    summary = summarise({"verbose": answers(90, style="verbose", cut=6)})["verbose"]
    assert summary["in_bound_share"] == 0.75
    assert summary["length_fits_share"] == 0.8
    assert summary["ended_by_itself_share"] == pytest.approx(114 / 120)
    low, high = summary["in_bound_interval"]
    assert 0.6 < low < 0.75 < high < 0.9
    assert summary["median_tokens"] == 140


def test_bounds_are_exclusive() -> None:
    edge = [{"tokens": 50, "finish_reason": "eos"}, {"tokens": 49, "finish_reason": "eos"}]
    assert summarise({"terse": edge})["terse"]["in_bound_share"] == 0.5
    edge = [{"tokens": 80, "finish_reason": "eos"}, {"tokens": 81, "finish_reason": "eos"}]
    assert summarise({"verbose": edge})["verbose"]["in_bound_share"] == 0.5


def test_the_fewest_examples_that_surely_suffice_are_chosen() -> None:
    weak, unsure, enough, more = point(1, 120, 80), point(2, 118, 110), point(3, 118, 116), point(4, 120, 120)
    assert unsure["verbose"]["in_bound_share"] > 0.9  # reaches the goal, but its interval does not clear 0.9
    assert choose([weak, unsure, enough, more]) == 3
    assert choose([weak, unsure]) is None


def test_the_curve_is_shown_with_its_baseline() -> None:
    document = {"points": [point(0, 10, 60), point(160, 118, 116)]}
    table = to_markdown(document).splitlines()
    assert table[2].startswith("| no adapter |  | 8.3% (")
    assert table[3].startswith("| 160 | 160.0 min | 98.3% (")
    assert draw(document) == draw(document)
    assert "training time" in draw(document)
