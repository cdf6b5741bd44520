"""Under pytest-xdist: the same outcomes, exit status and document, and nothing green that a worker lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from acceptance.criteria import DOCUMENTED
from harness.session import AcceptanceSession
from harness.subject import Subject

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

WORKERS = ("-n", "2")
SPEED = "style.generation_speed"
CHANGES_BETWEEN_RUNS = ("provenance", "pytest_arguments")


def comparable(project: Project) -> dict[str, Any]:
    """The document without time and command line."""
    return {name: value for name, value in project.document().items() if name not in CHANGES_BETWEEN_RUNS}


def test_snapshots_stand_in_one_order_whichever_worker_ends_first(tmp_path: Path) -> None:
    def documented_order(workers: list[str]) -> list[object]:
        session = AcceptanceSession(tmp_path, DOCUMENTED)
        for name in ("small", "random"):
            session.add(f"test_speed[{name}]", DOCUMENTED[SPEED], Subject(name, learned=True)).selected = True
        session.snapshots = [
            {"nodeid": f"test_answers[{name}]", "subject": name, "state": "MATCH", "detail": ""} for name in workers
        ]
        session.conclude(1, {}, [])
        assert session.document is not None
        return [snapshot["subject"] for snapshot in session.document["goldens"]]

    assert documented_order(["small", "random"]) == documented_order(["random", "small"]) == ["small", "random"]


def test_workers_change_nothing(project: Project) -> None:
    project.subjects = {"small": {"learned": True}, "random": {"learned": False}}
    project.arguments["training.completes"] = ", identify"
    project.bodies["training.completes"] += "\nidentify(target, {'adapter': 'abc'})"
    project.bodies["style.no_repetition"] = (
        "measured.record(answer_count=20, seq_rep_4_mean=float('nan'), looping_answer_share=Proportion(0, 20),"
        " long_repeat_answer_share=Proportion(0, 200))"
    )
    project.bodies[SPEED] += """
measured.attach("latency", kind="latency", values=[1.0, 2.0], unit="s", label="TERSE")
measured.show("answers", ["question"], [["Why?"]])
"""
    project.bodies["deployment.error_handling"] = "pytest.skip('no device')"
    project.extra = """
        from harness.criteria import Bound, Criterion

        @pytest.mark.criterion(Criterion("own.speed", "Fast", (Bound("rate", ">", 1.0),), "house"))
        def test_own(measured, target):
            measured.record(rate=2.0)

        def test_answers(device_snapshot, target):
            device_snapshot.check("never recorded")
    """
    project.conftest = "def pytest_snapshot_environment(config):\n    return 'here'\n"
    alone = project.run()
    expected = comparable(project)
    shared = project.run_in_processes(*WORKERS)
    assert comparable(project) == expected
    assert [(snapshot["subject"], snapshot["state"]) for snapshot in expected["goldens"]] == [
        ("small", "NO_GOLDEN"),
        ("random", "NO_GOLDEN"),
    ]
    shared.stdout.fnmatch_lines(["2 NO_GOLDEN"])
    assert alone.ret == shared.ret == 10
    assert shared.parseoutcomes() == alone.parseoutcomes()
    for name in project.subjects:
        assert project.verdict(f"verdict-{name}.json")["identity"] == {"adapter": "abc"}
    shown = [line for line in alone.stdout.lines if "ED" in line]
    assert [line for line in shared.stdout.lines if line in shown] == shown


def test_accepted_with_workers(project: Project) -> None:
    result = project.run_in_processes(*WORKERS)
    assert result.ret == 0
    result.assert_outcomes(passed=15)
    result.stdout.fnmatch_lines(["verdict: ACCEPTED"])
    assert set(project.outcomes().values()) == {"PASS"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "passed"),
    [(("-k", "training"), {"training"}), (("-m", "slow"), {"style"})],
)
def test_selection_with_workers_is_incomplete(project: Project, arguments: tuple[str, ...], passed: set[str]) -> None:
    project.decorators = {id_: "@pytest.mark.slow" for id_ in DOCUMENTED if id_.startswith("style.")}
    project.conftest = "def pytest_configure(config):\n    config.addinivalue_line('markers', 'slow: takes long')\n"
    assert project.run_in_processes(*WORKERS, *arguments).ret == 11
    found = project.outcomes()
    assert {id_.partition(".")[0] for id_, outcome in found.items() if outcome == "PASS"} == passed
    assert {outcome for id_, outcome in found.items() if id_.partition(".")[0] not in passed} == {"NOT_RUN"}


@pytest.mark.slow
def test_stop_at_first_failure_with_workers(project: Project) -> None:
    project.bodies["training.completes"] = "assert False"
    assert project.run_in_processes(*WORKERS, "-x").ret == 10
    assert project.outcomes()["training.completes"] == "FAIL"
    assert project.outcomes()["deployment.error_handling"] == "NOT_RUN"


def test_a_crashed_worker_leaves_the_run_not_accepted(project: Project) -> None:
    project.bodies["style.consistency"] = "import os\nos._exit(3)"
    result = project.run_in_processes(*WORKERS)
    assert result.ret == 11
    assert project.document()["decision"] == "INCOMPLETE"
    entry = project.criterion("style.consistency")
    assert (entry["outcome"], entry["reason"]) == ("NOT_RUN", "a worker process crashed before it reported the outcome")
    assert not (project.results / "accepted.json").exists()


def test_a_run_in_which_every_worker_crashes_is_not_green(project: Project) -> None:
    project.bodies["training.loads_in_4bit"] = "import os\nos._exit(3)"
    result = project.run_in_processes("-n", "1", "--max-worker-restart", "0")
    assert result.ret not in (0, 5)
    assert not (project.results / "accepted.json").exists()


def test_an_artefact_that_differs_between_workers_is_rejected(project: Project) -> None:
    for id_ in DOCUMENTED:
        project.arguments[id_] = ", identify"
        project.bodies[id_] = f"import os\nidentify(target, {{'process': os.getpid()}})\n{project.bodies[id_]}"
    result = project.run_in_processes(*WORKERS)
    assert result.ret == 10
    assert set(project.outcomes().values()) == {"FAIL"}
    entry = project.criterion(SPEED)
    assert entry["reason"] == "small changed while it was judged: its identity is not what it was before"
    assert entry["measurements"]["response_count"] == 12


@pytest.mark.slow
def test_other_failing_test_keeps_the_run_failed_with_workers(project: Project) -> None:
    project.extra = "def test_other():\n    assert False\n"
    assert project.run_in_processes(*WORKERS).ret == 1
    assert project.document()["decision"] == "ACCEPTED"


def test_usage_error_with_workers_is_reported_as_without(project: Project) -> None:
    del project.bodies[SPEED]
    alone, shared = project.run(), project.run_in_processes(*WORKERS)
    assert alone.ret == shared.ret == 4
    assert f"small: {SPEED}" in shared.stderr.str()
    assert "INTERNALERROR" not in shared.stdout.str()
    assert not project.results.exists()


def test_workers_without_criteria_are_not_noticed(project: Project) -> None:
    project.bodies = {}
    project.extra = "def test_other():\n    pass\n"
    result = project.run_in_processes(*WORKERS)
    assert result.ret == 0
    assert "acceptance" not in result.stdout.str()
    assert not project.results.exists()
