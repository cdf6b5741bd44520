"""Two runs that asked the same questions are compared question by question."""

from __future__ import annotations

import json
import math

import pytest

from harness.report.compare_runs import compare
from harness.report.samples import paired_shift
from tests.unit.harness.report_documents import SEPARATION, TERSE, accepted_document, proportion
from tests.unit.harness.test_compare_runs import SHARE, TERSE_MEDIAN, Document, criterion, found, shifted


@pytest.fixture
def before() -> Document:
    return accepted_document()


@pytest.fixture
def after() -> Document:
    return accepted_document()


def by_question(*flags: bool) -> dict[str, bool]:
    return {f"question {number}": flag for number, flag in enumerate(flags)}


def paired(before: Document, after: Document, successes: tuple[int, int] = (118, 112)) -> None:
    """120 questions; those that succeed later are among those that did before, so all changes go one way."""
    for document, good in zip((before, after), successes, strict=True):
        entry = criterion(document, SEPARATION)
        entry["measurements"][SHARE] = proportion(good, 120)
        entry["cases"] = {SHARE: by_question(*(number < good for number in range(120)))}


def test_shares_of_the_same_questions_are_compared_in_pairs(before: Document, after: Document) -> None:
    paired(before, after)
    difference = found(compare(before, after), SHARE)
    assert difference.kind == "regression"
    assert difference.p_value == pytest.approx(2 / 2**6)
    assert "6 of 120" in difference.detail
    assert found(compare(after, before), SHARE).kind == "improvement"


def test_shares_of_other_questions_are_strangers(before: Document, after: Document) -> None:
    paired(before, after)
    cases = criterion(after, SEPARATION)["cases"]
    cases[SHARE] = {f"other {question}": flag for question, flag in cases[SHARE].items()}
    strangers = found(compare(before, after), SHARE)
    assert strangers.kind == "within noise"
    assert strangers.p_value == pytest.approx(0.1020, abs=5e-5)
    del criterion(after, SEPARATION)["cases"]
    assert found(compare(before, after), SHARE) == strangers


def test_changes_in_both_directions_are_noise(before: Document, after: Document) -> None:
    paired(before, after, (60, 62))
    cases = criterion(after, SEPARATION)["cases"]
    flags = [not 0 <= number < 4 and number < 66 for number in range(120)]
    cases[SHARE] = by_question(*flags)
    assert found(compare(before, after), SHARE).kind == "within noise"


def test_samples_of_the_same_questions_are_compared_in_pairs(before: Document, after: Document) -> None:
    longer = [value + 2 + step / 100 for step, value in enumerate(TERSE)]
    strangers = found(compare(before, shifted(after, longer)), TERSE_MEDIAN)
    assert strangers.kind == "within noise"
    for document, order in ((before, 1), (after, -1)):
        sample = criterion(document, SEPARATION)["attachments"][0]
        # The order of the questions does not matter, only which value is whose.
        sample["values"] = sample["values"][::order]
        sample["cases"] = [f"question {number}" for number in range(len(TERSE))][::order]
    pairs = found(compare(before, after), TERSE_MEDIAN)
    assert pairs.kind == "regression"
    assert pairs.p_value == pytest.approx(2 / 2 ** len(TERSE))
    assert "10 pairs" in pairs.detail


def test_pairs_with_ties_and_without_changes_are_compared(before: Document, after: Document) -> None:
    longer = [value + (2 if step < 6 else 0) for step, value in enumerate(TERSE)]
    for document in (before, shifted(after, longer)):
        criterion(document, SEPARATION)["attachments"][0]["cases"] = [f"question {n}" for n in range(len(TERSE))]
    assert found(compare(before, after), TERSE_MEDIAN).p_value == pytest.approx(0.0143, abs=5e-5)
    same = json.loads(json.dumps(before))
    criterion(same, SEPARATION)["attachments"][0]["values"][0] -= 1
    assert compare(before, same).has_regression is False


def test_a_median_that_leaves_zero_changes_beyond_any_share() -> None:
    changes = [paired_shift({"a": 0.0, "b": 0.0}, {"a": later, "b": later}) for later in (0.0, 2.0, -2.0)]
    assert [change.relative_change for change in changes if change] == [0.0, math.inf, -math.inf]
    assert [change.is_substantial for change in changes if change] == [False, True, True]


def test_pairs_with_a_value_that_is_not_finite_are_not_compared() -> None:
    assert paired_shift({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": "nan"}) is None
