"""The faults cover the criteria, and the committed matrix is what the faults and the criteria of today say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acceptance.test_served_answers import SERVED_ANSWERS
from pipeline.config import TARGETS, resolve_preset
from sabotage import training
from sabotage.criteria import BOUNDS, younger
from sabotage.fault import Fault
from sabotage.faults import FAULTS
from sabotage.matrix import RESULT, Workshop, judged, require_bounds_in_force, with_older
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
        "seen": "",
        "catches": ["style.consistency"],
        "outcomes": {"style.consistency": outcome},
        "decision": decision,
        "caught": outcome == "FAIL",
        "unexpected": [],
    }


def test_every_criterion_has_a_fault_of_its_own() -> None:
    assert {id_ for fault in FAULTS.values() for id_ in fault.catches} == {c.id for c in CRITERIA}
    assert len(FAULTS) >= 60
    assert sum(bool(fault.seen) for fault in FAULTS.values()) >= 25


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_each_fault_breaks_one_thing_and_names_known_criteria(fault: Any) -> None:
    assert (fault.inject is None) != (fault.damage is None)
    assert bool(fault.catches) != bool(fault.blind_spot)
    assert set(fault.catches) | set(fault.may_follow) <= {c.id for c in CRITERIA}
    assert not (fault.trains and fault.damage)


def test_a_training_that_learns_nothing_is_one_that_starts() -> None:
    target = TARGETS["smollm2-135m"]
    lean: Any = target.lean
    before = dict(lean)
    try:
        training.learn_nothing()
        rate = resolve_preset("lean", target).training.learning_rate
    finally:
        lean.clear()
        lean.update(before)
    assert np.float32(rate) == 0


def test_a_missed_fault_and_a_rejected_healthy_run_are_counted() -> None:
    faults = [trial("found", "FAIL", "REJECTED"), trial("missed", "PASS", "ACCEPTED")]
    healthy = [{"outcomes": {"style.consistency": "UNDECIDED"}, "decision": "INCOMPLETE"}]
    document = summarise(faults, [{"seed": 1000, **run} for run in healthy])
    counts = ("fault_count", "caught_count", "false_accept_count", "healthy_count", "false_reject_count")
    assert [document[name] for name in counts] == [2, 1, 1, 1, 1]
    text = to_markdown(document)
    assert "1 of 2 faults caught, 1 accepted; 1 of 1 healthy runs not accepted." in text
    assert document["faults_not_run"] == list(FAULTS)
    assert "Not run yet: bf16, fp4," in text
    (row,) = [line for line in text.splitlines() if line.startswith("| missed | something |")]
    assert "| **\u00b7** |" in row


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        ("ACCEPTED", "Not caught, and known: blind (it changes too little)."),
        ("REJECTED", "Known as blind spots, and caught: blind (by style.consistency)."),
    ],
)
def test_a_known_blind_spot_is_listed_apart_and_counted_nowhere(decision: str, said: str) -> None:
    outcome = "FAIL" if decision == "REJECTED" else "PASS"
    blind = {**trial("blind", outcome, decision), "catches": [], "blind_spot": "it changes too little"}
    document = summarise([trial("found", "FAIL", "REJECTED"), blind], ())
    assert [document[name] for name in ("fault_count", "caught_count", "false_accept_count")] == [1, 1, 0]
    text = to_markdown(document)
    assert "1 of 1 faults caught, 0 accepted;" in text
    assert said in text.splitlines()
    assert "| blind | something |" in text


def test_a_blind_spot_is_caught_only_if_it_is_rejected() -> None:
    fault = Fault("blind", "something", (), blind_spot="it changes too little", inject=lambda: None)
    found = {"outcomes": {"style.consistency": "UNDECIDED"}}
    assert not judged(fault, {**found, "decision": "INCOMPLETE"})["caught"]
    assert judged(fault, {**found, "decision": "REJECTED"})["caught"]


def test_older_trials_stay_until_they_are_run_again_and_are_held_against_todays_faults() -> None:
    found = {"decision": "REJECTED", "outcomes": {"training.loads_in_4bit": "FAIL"}}
    older = {
        "bounds": BOUNDS,
        "faults": [{"name": "fp4", **found, "caught": False}, {"name": "bf16", "decision": "ACCEPTED", "outcomes": {}}],
        "healthy": [
            {"seed": 1001, "decision": "ACCEPTED", "outcomes": {}},
            {"seed": 1000, "decision": "REJECTED", "outcomes": {}},
        ],
    }
    repeats = [{"seed": 1000, "decision": "ACCEPTED", "outcomes": {}}]
    faults, healthy = with_older(older, [{"name": "bf16", **found}], repeats)
    assert [(fault["name"], fault["caught"]) for fault in faults] == [("bf16", True), ("fp4", True)]
    assert [(run["seed"], run["decision"]) for run in healthy] == [(1000, "ACCEPTED"), (1001, "ACCEPTED")]


def result_of(folder: Path, criteria: dict[str, str], limits: Mapping[str, Mapping[str, str]]) -> Path:
    """A trial's result document with these outcomes and limits."""
    entries = [
        {
            "id": id_,
            "outcome": outcome,
            "bounds": [
                {"measure": measure, "limit": limit, "documented_limit": None}
                for measure, limit in limits.get(id_, {}).items()
            ],
        }
        for id_, outcome in criteria.items()
    ]
    provenance = dict.fromkeys(("gpu", "cpu_model", "git_commit", "git_dirty", "packages"))
    document = {"decision": "REJECTED", "provenance": provenance, "subjects": [{"criteria": entries}]}
    folder.mkdir(parents=True)
    (folder / RESULT).write_text(json.dumps(document), encoding="utf-8")
    return folder / RESULT


def test_a_result_of_other_bounds_is_not_put_beside_the_others(tmp_path: Path) -> None:
    outcomes = dict.fromkeys(BOUNDS, "PASS")
    require_bounds_in_force([result_of(tmp_path / "now", outcomes, BOUNDS)])
    other = {**BOUNDS, "style.consistency": {"ordered_question_share": ">= 0.5"}}
    with pytest.raises(RuntimeError, match=r"acceptance\.json: other bounds of style\.consistency"):
        require_bounds_in_force([result_of(tmp_path / "then", outcomes, other)])


def test_a_changed_criterion_takes_its_outcomes_out_of_older_trials_and_names_them() -> None:
    outcomes = dict.fromkeys(BOUNDS, "PASS")
    older = {
        "bounds": {**BOUNDS, "style.consistency": {"ordered_question_share": ">= 0.5"}},
        "faults": [{"name": "swap", "decision": "ACCEPTED", "outcomes": {}}],
        "healthy": [{"seed": 1000, "decision": "ACCEPTED", "outcomes": outcomes}],
    }
    _, healthy = with_older(older, (), ())
    assert "style.consistency" not in healthy[0]["outcomes"]
    document = summarise((), healthy)
    assert document["to_repeat"] == {"healthy-1000": ["style.consistency"]}


def test_a_trial_older_than_a_criterion_that_could_change_it_is_named() -> None:
    outcomes = {id_: "PASS" for id_ in BOUNDS if id_ not in ("deployment.under_load", SERVED_ANSWERS.id)}
    trials = [
        {**trial(name, "FAIL", "REJECTED"), "target": target, "outcomes": outcomes}
        for name, target in (("small", "tiny-mistral"), ("large", "smollm2-135m"))
    ]
    complete = {"seed": 1000, "decision": "ACCEPTED", "outcomes": dict.fromkeys(BOUNDS, "PASS")}
    document = summarise(trials, [complete])
    load, served = "deployment.under_load", SERVED_ANSWERS.id
    # Random weights show nothing to a criterion of learned ones.
    assert document["to_repeat"] == {"small": [load], "large": [load, served]}
    numbers = [str(document["criteria"].index(id_) + 1) for id_ in (load, served)]
    text = to_markdown(document)
    assert f"To repeat, being older than {numbers[0]}: small." in text
    assert f"To repeat, being older than {', '.join(sorted(numbers, key=int))}: large." in text
    assert text.count("~ |") == 3
    assert younger(complete) == []


def test_a_finished_trial_is_run_again_once_a_criterion_is_younger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes, asked = dict.fromkeys(BOUNDS, "PASS"), []

    def gate(self: Workshop, log: Path, *arguments: str) -> int:
        asked.append(arguments)
        (log.parent / RESULT).unlink(missing_ok=True)
        log.parent.rmdir()
        result_of(log.parent, outcomes, {})
        return 0

    monkeypatch.setattr(Workshop, "command", gate)
    shop = Workshop(tmp_path, "cpu", 1)
    result_of(tmp_path / "old", {id_: "PASS" for id_ in BOUNDS if id_ != "deployment.under_load"}, {})
    found = shop.accept(tmp_path / "old", "smollm2-135m")
    assert len(asked) == 1
    assert len(found["subjects"][0]["criteria"]) == len(BOUNDS)
    assert shop.accept(tmp_path / "old", "smollm2-135m") == found
    assert len(asked) == 1


def test_the_committed_counts_are_those_of_its_trials(matrix: dict[str, Any]) -> None:
    assert summarise(matrix["faults"], matrix["healthy"]) == matrix
    assert matrix["criteria_without_fault"] == []
    assert {*matrix["faults_not_run"], *(fault["name"] for fault in matrix["faults"])} == FAULTS.keys()
    assert matrix["false_reject_count"] == matrix["false_accept_count"] == 0


def test_the_committed_matrix_is_of_these_criteria_and_faults(matrix: dict[str, Any]) -> None:
    assert matrix["bounds"] == BOUNDS
    for fault in matrix["faults"]:
        assert fault["catches"] == list(FAULTS[fault["name"]].catches)
        assert fault["git_dirty"] is False
        assert fault["caught"] != bool(FAULTS[fault["name"]].blind_spot), fault["name"]
        assert not fault["unexpected"], fault["name"]


@pytest.mark.parametrize("name", ["served-word-salad", "served-base"])
def test_only_reading_them_again_shows_that_a_servers_answers_are_not_the_models(
    matrix: dict[str, Any], name: str
) -> None:
    (found,) = [fault["outcomes"] for fault in matrix["faults"] if fault["name"] == name]
    assert {id_ for id_, outcome in found.items() if outcome != "PASS"} == {SERVED_ANSWERS.id}
