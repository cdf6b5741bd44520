"""Two runs against each other: what is noise, what is a regression, what is not compared."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from harness.commands import COMPARE
from harness.report.changes import changes_since
from harness.report.compare_runs import Comparison, Difference, IncomparableRunsError, compare
from tests.unit.harness.report_documents import (
    SEPARATION,
    SPEED,
    SUBJECT,
    TERSE,
    accepted_document,
    attachment,
    proportion,
    rejected_document,
)

Document = dict[str, Any]
SHARE = "terse_in_bound_share"


@pytest.fixture
def before() -> Document:
    return accepted_document()


@pytest.fixture
def after() -> Document:
    return accepted_document()


def criterion(document: Document, id_: str) -> Any:
    return next(entry for entry in document["subjects"][0]["criteria"] if entry["id"] == id_)


def found(comparison: Comparison, name: str) -> Difference:
    [difference] = [each for each in comparison.differences if each.name == name]
    return difference


def test_equal_runs_do_not_differ(before: Document, after: Document) -> None:
    comparison = compare(before, after)
    assert comparison == Comparison((), ())
    assert not comparison.has_regression


@pytest.mark.parametrize("outcome", ["FAIL", "UNDECIDED", "NOT_RUN", "NOT_APPLICABLE"])
def test_a_lost_pass_is_a_regression_and_a_new_one_an_improvement(
    outcome: str, before: Document, after: Document
) -> None:
    criterion(after, SPEED).update(outcome=outcome, reason="because")
    lost = found(compare(before, after), "outcome")
    assert (lost.kind, lost.before, lost.after, lost.detail) == ("regression", "PASS", outcome, "because")
    assert found(compare(after, before), "outcome").kind == "improvement"


def test_a_criterion_that_is_gone_is_a_regression(before: Document, after: Document) -> None:
    after["subjects"][0]["criteria"].pop()
    assert found(compare(before, after), "outcome").kind == "regression"
    assert found(compare(after, before), "outcome").kind == "improvement"


# By Fisher's exact test: 120 of 120 against 115 of 120 has p = 0.0599, against 114 of 120 p = 0.0293.
@pytest.mark.parametrize(
    ("first", "second", "kind", "p_value"),
    [
        ((120, 120), (115, 120), "within noise", 0.0599),
        ((120, 120), (114, 120), "regression", 0.0293),
        ((114, 120), (120, 120), "improvement", 0.0293),
    ],
)
def test_proportions_are_compared_by_fishers_exact_test(
    first: tuple[int, int], second: tuple[int, int], kind: str, p_value: float, before: Document, after: Document
) -> None:
    for document, counts in ((before, first), (after, second)):
        criterion(document, SEPARATION)["measurements"][SHARE] = proportion(*counts)
    difference = found(compare(before, after), SHARE)
    assert difference.kind == kind
    assert difference.p_value == pytest.approx(p_value, abs=5e-5)


def test_a_share_that_should_be_small_is_worse_when_it_grows(before: Document, after: Document) -> None:
    for document, successes in ((before, 0), (after, 20)):
        entry = criterion(document, SEPARATION)
        entry["bounds"][2].update(comparison="<=", threshold=0.1, limit="<= 0.1")
        entry["measurements"][SHARE] = proportion(successes, 120)
    assert found(compare(before, after), SHARE).kind == "regression"


def test_a_share_without_bound_has_no_good_side(before: Document, after: Document) -> None:
    for document, successes in ((before, 0), (after, 120)):
        criterion(document, SEPARATION)["measurements"]["other"] = proportion(successes, 120)
    assert found(compare(before, after), "other").kind == "change"


def shifted(document: Document, values: list[float]) -> Document:
    criterion(document, SEPARATION)["attachments"][0]["values"] = values
    return document


TERSE_MEDIAN = "answer_tokens (TERSE), median"


def test_a_sample_that_moves_to_its_bound_is_a_regression(before: Document, after: Document) -> None:
    longer = found(compare(before, shifted(after, [value + 20 for value in TERSE])), TERSE_MEDIAN)
    assert (longer.kind, longer.before, longer.after) == ("regression", "29 tokens", "49 tokens")
    assert longer.p_value is not None
    assert longer.p_value < 0.001
    assert found(compare(after, before), TERSE_MEDIAN).kind == "improvement"


def test_a_large_shift_of_few_values_is_noise(before: Document, after: Document) -> None:
    difference = found(compare(shifted(before, [20.0, 30.0]), shifted(after, [40.0, 50.0])), TERSE_MEDIAN)
    assert difference.kind == "within noise"
    # The smallest p that two values against two can have.
    assert difference.p_value == pytest.approx(1 / 3)


def test_a_significant_trifle_is_noise(before: Document, after: Document) -> None:
    first = [30.0 + 0.001 * step for step in range(50)]
    difference = found(compare(shifted(before, first), shifted(after, [v + 1.4 for v in first])), TERSE_MEDIAN)
    assert difference.kind == "within noise"
    assert difference.p_value is not None
    assert difference.p_value < 1e-9


def test_samples_without_a_bound_of_their_label_have_no_good_side(before: Document, after: Document) -> None:
    for document in (before, after):
        criterion(document, SEPARATION)["attachments"][0]["label"] = "other"
    shifted(after, [value + 20 for value in TERSE])
    assert found(compare(before, after), "answer_tokens (other), median").kind == "change"


def test_samples_with_a_value_that_is_not_finite_are_not_compared(before: Document, after: Document) -> None:
    criterion(after, SEPARATION)["attachments"][0]["values"] = [*TERSE[1:], "nan"]
    comparison = compare(before, after)
    assert comparison.differences == ()
    assert any(TERSE_MEDIAN in note and "not finite" in note for note in comparison.notes)


def test_series_are_not_samples(before: Document, after: Document) -> None:
    criterion(after, SEPARATION)["attachments"][2]["values"] = [300.0] * 30
    assert compare(before, after).differences == ()


def test_single_numbers_change_without_a_claim(before: Document, after: Document) -> None:
    criterion(after, SEPARATION)["measurements"]["terse_median_tokens"] = 49.0
    difference = found(compare(before, after), "terse_median_tokens")
    assert (difference.kind, difference.p_value, difference.after) == ("change", None, "49")


@pytest.mark.parametrize("state", ["undecided", "missing", "violated"])
def test_a_worse_bound_is_a_regression(state: str, before: Document, after: Document) -> None:
    entry = criterion(after, SEPARATION)
    entry["measurements"]["terse_median_tokens"] = 61.0
    entry["bounds"][0]["state"] = state
    assert found(compare(before, after), "terse_median_tokens").kind == "regression"
    assert found(compare(after, before), "terse_median_tokens").kind == "improvement"


def slower(document: Document) -> Document:
    entry = criterion(document, SPEED)
    entry["measurements"].update(latency_max_s=4.0, tokens_per_s=8.0)
    entry["attachments"] = [attachment("latency", "latency", [2.0 + 0.01 * step for step in range(10)], "s", "TERSE")]
    return document


def test_latencies_of_like_machines_are_compared(before: Document, after: Document) -> None:
    comparison = compare(before, slower(after))
    assert found(comparison, "latency (TERSE), median").kind == "regression"
    assert found(comparison, "latency_max_s").kind == "change"
    assert found(comparison, "tokens_per_s").kind == "change"
    assert comparison.notes == ()


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "cpu_model", "other CPU"),
        ((), "cpu_model", None),
        ((), "cpu_count", 64),
        ((), "machine", "aarch64"),
        ((), "gpu", "A GPU"),
        ((), "gpu", {"name": "A GPU"}),
        (("packages",), "torch", "2.7.1"),
        (("packages",), "transformers", "4.54.0"),
    ],
)
def test_timings_of_unlike_machines_are_not_compared(
    place: tuple[str, ...], key: str, value: object, before: Document, after: Document
) -> None:
    settings = after["provenance"]
    for part in place:
        settings = settings[part]
    settings[key] = value
    criterion(slower(after), SEPARATION)["measurements"][SHARE] = proportion(60, 120)
    comparison = compare(before, after)
    assert [difference.name for difference in comparison.differences] == [SHARE]
    [note] = comparison.notes
    assert note.startswith("Times and rates were not compared: ")
    assert key in note


def test_other_packages_do_not_make_machines_unlike(before: Document, after: Document) -> None:
    after["provenance"]["packages"]["flask"] = "3.1.3"
    assert compare(before, after).notes == ()


def test_other_artefacts_and_snapshots_are_named(before: Document, after: Document) -> None:
    after["subjects"][0]["identity"]["data"]["sha256"] = "77" * 32
    after["goldens"][0].update(state="DIFFERENT", detail="delta 0.1")
    comparison = compare(before, after)
    assert found(comparison, "data.sha256").kind == "change"
    snapshot = found(comparison, "tests/g.py::test_answer")
    assert (snapshot.kind, snapshot.before, snapshot.after, snapshot.detail) == (
        "regression",
        "MATCH",
        "DIFFERENT",
        "delta 0.1",
    )
    assert found(compare(after, before), "tests/g.py::test_answer").kind == "improvement"


def test_replaced_thresholds_are_noted(before: Document, after: Document) -> None:
    after["subjects"][0]["thresholds"] = {}
    assert any("different thresholds" in note for note in compare(before, after).notes)


def test_different_questions_are_noted(before: Document, after: Document) -> None:
    before["provenance"]["questions"] = {"file": "heldout_questions.jsonl", "sha256": "ab" * 32, "count": 120}
    assert compare(before, after).notes == ()
    after["provenance"]["questions"] = {"file": "own.jsonl", "sha256": "cd" * 32, "count": 52}
    assert compare(before, after).notes == (
        "The runs were asked different questions (120 of heldout_questions.jsonl and 52 of own.jsonl), which may be all"
        " that differs.",
    )


@pytest.mark.parametrize(("key", "value"), [("name", "other"), ("access", "endpoint"), ("learned", False)])
def test_other_subjects_are_refused(key: str, value: object, before: Document, after: Document) -> None:
    after["subjects"][0][key] = value
    with pytest.raises(IncomparableRunsError, match="the subjects differ"):
        compare(before, after)


def test_other_criteria_are_refused(before: Document, after: Document) -> None:
    after["criteria_version"] = "cd" * 32
    told = "set verbosity, criteria_version abababababab, and set verbosity, cdcdcdcdcdcd"
    with pytest.raises(IncomparableRunsError, match=told):
        compare(before, after)


def test_another_set_is_refused_even_with_the_same_criteria(before: Document, after: Document) -> None:
    after["criteria_set"] = "json-extraction"
    with pytest.raises(IncomparableRunsError, match="and set json-extraction, abababababab"):
        compare(before, after)


def test_a_document_from_before_sets_had_names_is_compared_by_its_version(before: Document, after: Document) -> None:
    del before["criteria_set"]
    assert not compare(before, after).has_regression
    after["criteria_version"] = "cd" * 32
    with pytest.raises(IncomparableRunsError, match="set of an earlier version"):
        compare(before, after)


def test_changes_are_the_comparison(before: Document) -> None:
    changes = changes_since(before, rejected_document())
    expected = compare(before, rejected_document()).as_document()
    assert changes["refused"] is None
    assert changes["previous"] == {"git_commit": "0123abcd", "time_utc": "2026-01-02T03:04:05+00:00"}
    assert {key: changes[key] for key in expected} == expected
    assert json.loads(json.dumps(changes)) == changes
    kinds = [(each["name"], each["kind"]) for each in changes["differences"]]
    assert kinds == [("outcome", "regression"), ("terse_median_tokens", "regression"), ("outcome", "regression")]


def run_command(*paths: Path) -> int:
    parser = argparse.ArgumentParser()
    COMPARE.configure(parser)
    return COMPARE.run(parser.parse_args([str(path) for path in paths]))


def write(path: Path, document: Document) -> Path:
    path.mkdir()
    (path / "acceptance.json").write_text(json.dumps(document), encoding="utf-8")
    return path


def test_the_command_prints_markdown_and_exits_1_on_a_regression(
    before: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write(tmp_path / "a", before), write(tmp_path / "b", rejected_document())
    assert run_command(first, second / "acceptance.json") == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "### regression: 3" in printed.out
    assert "| subject | criterion | what | before | after | why | p |" in printed.out
    assert (
        f"| {SUBJECT.replace('<', chr(92) + '<').replace('>', chr(92) + '>')} | {SPEED} | outcome | PASS | NOT_RUN |"
        in (printed.out)
    )
    assert run_command(second, first) == 0
    assert run_command(first, first) == 0
    assert "no difference" in capsys.readouterr().out


def test_the_command_exits_2_when_it_cannot_compare(
    before: Document, after: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after["criteria_version"] = "cd" * 32
    first, second = write(tmp_path / "a", before), write(tmp_path / "b", after)
    assert run_command(first, second) == 2
    assert capsys.readouterr().err.startswith("verbosity compare: the criteria differ")
    assert run_command(first, tmp_path / "missing.json") == 2
    assert "missing.json: No such file" in capsys.readouterr().err


def test_the_command_prints_its_notes_above_the_tables(
    before: Document, after: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after["subjects"][0]["thresholds"] = {}
    assert run_command(write(tmp_path / "a", before), write(tmp_path / "b", after)) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("- ")]
    assert len(notes) == 1
    assert "different thresholds" in notes[0]
