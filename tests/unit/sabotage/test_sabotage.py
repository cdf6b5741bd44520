"""The faults cover the criteria, and the committed matrix is what the faults and the criteria of today say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from acceptance.test_served_answers import SERVED_ANSWERS
from sabotage.faults import FAULTS
from sabotage.matrix import judged_bounds, with_older
from sabotage.picture import summarise, to_markdown
from tests.unit.all_criteria import CRITERIA

FOLDER = Path(__file__).resolve().parents[3] / "results" / "sabotage"


@pytest.fixture
def matrix() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / "matrix.json").read_text(encoding="utf-8"))
    return document


def trial(name: str, outcome: str, decision: str) -> dict[str, Any]:
    return {
        "name": name,
        "what": "something",
        "catches": ["style.consistency"],
        "outcomes": {"style.consistency": outcome},
        "decision": decision,
        "caught": outcome == "FAIL",
        "unexpected": [],
    }


def test_every_criterion_has_a_fault_of_its_own() -> None:
    assert {id_ for fault in FAULTS.values() for id_ in fault.catches} == {c.id for c in CRITERIA}
    assert len(FAULTS) >= 24


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_each_fault_breaks_one_thing_and_names_known_criteria(fault: Any) -> None:
    assert (fault.inject is None) != (fault.damage is None)
    assert set(fault.catches) | set(fault.may_follow) <= {c.id for c in CRITERIA}
    assert not (fault.trains and fault.damage)


def test_a_missed_fault_and_a_rejected_healthy_run_are_counted() -> None:
    faults = [trial("found", "FAIL", "REJECTED"), trial("missed", "PASS", "ACCEPTED")]
    healthy = [{"outcomes": {"style.consistency": "UNDECIDED"}, "decision": "INCOMPLETE"}]
    document = summarise(faults, healthy, {"style.consistency": {"some": ">= 1"}})
    counts = ("fault_count", "caught_count", "false_accept_count", "healthy_count", "false_reject_count")
    assert [document[name] for name in counts] == [2, 1, 1, 1, 1]
    text = to_markdown(document)
    assert "1 of 2 faults caught, 1 accepted; 1 of 1 healthy runs not accepted." in text
    assert document["faults_not_run"] == list(FAULTS)
    assert "Not run yet: bf16, fp4," in text
    assert "| missed | something | **\u00b7** |" in text


def test_older_trials_stay_until_they_are_run_again_and_are_held_against_todays_faults() -> None:
    found = {"decision": "REJECTED", "outcomes": {"training.loads_in_4bit": "FAIL"}}
    older = {
        "faults": [{"name": "fp4", **found, "caught": False}, {"name": "bf16", "decision": "ACCEPTED", "outcomes": {}}],
        "healthy": [{"seed": 1001, "decision": "ACCEPTED"}, {"seed": 1000, "decision": "REJECTED"}],
    }
    faults, healthy = with_older(older, [{"name": "bf16", **found}], [{"seed": 1000, "decision": "ACCEPTED"}])
    assert [(fault["name"], fault["caught"]) for fault in faults] == [("bf16", True), ("fp4", True)]
    assert healthy == [{"seed": 1000, "decision": "ACCEPTED"}, {"seed": 1001, "decision": "ACCEPTED"}]


def test_a_trial_judged_by_other_bounds_is_not_put_beside_the_older_ones(tmp_path: Path) -> None:
    bound = {"measure": "some", "limit": ">= 2", "documented_limit": None}
    document = {"subjects": [{"criteria": [{"id": "style.consistency", "bounds": [bound]}]}]}
    result = tmp_path / "acceptance.json"
    result.write_text(json.dumps(document), encoding="utf-8")
    assert judged_bounds([result], {}) == {"style.consistency": {"some": ">= 2"}}
    with pytest.raises(RuntimeError, match=r"acceptance\.json: other bounds of style\.consistency"):
        judged_bounds([result], {"style.consistency": {"some": ">= 1"}})


def test_the_committed_counts_are_those_of_its_trials(matrix: dict[str, Any]) -> None:
    assert summarise(matrix["faults"], matrix["healthy"], matrix["bounds"]) == matrix
    assert matrix["criteria_without_fault"] == matrix["faults_not_run"] == []
    assert matrix["false_reject_count"] == matrix["false_accept_count"] == 0


def test_the_committed_matrix_is_of_these_criteria_and_faults(matrix: dict[str, Any]) -> None:
    today = {c.id: {bound.measure: bound.limit for bound in c.bounds} for c in CRITERIA}
    assert matrix["bounds"] == today
    for fault in matrix["faults"]:
        assert fault["catches"] == list(FAULTS[fault["name"]].catches)
        assert fault["git_dirty"] is False
        assert fault["caught"], fault["name"]
        assert not fault["unexpected"], fault["name"]


@pytest.mark.parametrize("name", ["served-word-salad", "served-base"])
def test_only_reading_them_again_shows_that_a_servers_answers_are_not_the_models(
    matrix: dict[str, Any], name: str
) -> None:
    (found,) = [fault["outcomes"] for fault in matrix["faults"] if fault["name"] == name]
    assert {id_ for id_, outcome in found.items() if outcome != "PASS"} == {SERVED_ANSWERS.id}
