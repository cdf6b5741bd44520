"""The registry and the tests must match, or nothing runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from acceptance.criteria import DOCUMENTED
from harness.criteria import Need

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

SPEED = "style.generation_speed"
SPEED_TEST = "test_style_generation_speed"


def assert_usage_error(result: pytest.RunResult, *messages: str) -> None:
    assert result.ret == 4
    for message in messages:
        assert message in result.stderr.str()


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("criterion('style.tokn')", "no criterion 'style.tokn' in the set verbosity"),
        ("criterion", "mark it once"),
        ("criterion(7)", "no criterion 7 in the set verbosity"),
        ("criterion(id='style.consistency')", "mark it once"),
        (f"criterion('{SPEED}', 'style.consistency')", "mark it once"),
    ],
)
def test_wrong_criterion_mark_is_refused(project: Project, mark: str, message: str) -> None:
    project.extra = f"@pytest.mark.{mark}\ndef test_wrong(measured, target):\n    pass\n"
    assert_usage_error(project.run(), "test_wrong[small]", message)


def test_two_criteria_on_one_test_are_refused(project: Project) -> None:
    project.decorators[SPEED] = "@pytest.mark.criterion('style.consistency')"
    assert_usage_error(project.run(), f"{SPEED_TEST}[small]: mark it once")


def test_wrong_mark_is_refused_even_when_deselected(project: Project) -> None:
    project.extra = "@pytest.mark.criterion('typo')\ndef test_wrong(measured, target):\n    pass\n"
    assert_usage_error(project.run("-k", "training"), "typo")


def test_criterion_without_subject_is_refused(project: Project) -> None:
    project.extra = f"@pytest.mark.criterion({SPEED!r})\ndef test_wrong(measured):\n    pass\n"
    assert_usage_error(project.run(), "test_wrong", "pytest.mark.subject(")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learned": "no"}, "learned=True or False"),
        ({}, "learned=True or False"),
        ({"learned": True, "treshold": {}}, "optionally thresholds"),
        ({"learned": True, "access": "remote"}, "access is one of model, endpoint"),
        ({"learned": True, "thresholds": {f"{SPEED}/typo": 1.0}}, "in the criteria set verbosity"),
        ({"learned": True, "thresholds": {"training.adapter_saves/reloads": 1.0}}, "boolean bound"),
    ],
)
def test_wrong_subject_mark_is_refused(project: Project, settings: dict[str, object], message: str) -> None:
    project.subjects = {"small": settings}
    assert_usage_error(project.run(), message)


def test_contradicting_subject_marks_are_refused(project: Project) -> None:
    project.extra = (
        "@pytest.mark.subject(name='small', learned=False)\n"
        f"@pytest.mark.criterion({SPEED!r})\ndef test_wrong(measured):\n    pass\n"
    )
    assert_usage_error(project.run(), "test_wrong", "described differently")


def test_a_usage_error_leaves_earlier_results(project: Project) -> None:
    assert project.run().ret == 0
    before = project.document()
    del project.bodies[SPEED]
    assert project.run().ret == 4
    assert project.document() == before


@pytest.mark.parametrize("argument", [None, ".", "tests"])
def test_criterion_without_test_is_refused(project: Project, argument: str | None) -> None:
    del project.bodies[SPEED]
    result = project.run(*([argument] if argument else []))
    assert_usage_error(result, f"small: {SPEED}")
    assert "style.consistency" not in result.stderr.str()


def test_every_subject_needs_every_criterion(project: Project) -> None:
    project.extra = (
        "@pytest.mark.subject(name='other', learned=True)\n"
        f"@pytest.mark.criterion({SPEED!r})\ndef test_other(measured):\n    pass\n"
    )
    result = project.run()
    assert_usage_error(result, *(f"other: {id_}" for id_ in DOCUMENTED if id_ != SPEED))
    assert "small:" not in result.stderr.str()


def test_single_file_may_lack_criteria_but_is_incomplete(project: Project) -> None:
    del project.bodies[SPEED]
    assert project.run("tests/test_gate.py").ret == 11


def test_folder_without_criterion_tests_does_not_ask_for_all(project: Project) -> None:
    del project.bodies[SPEED]
    project.write()
    other = project.pytester.mkdir("other")
    other.joinpath("test_other.py").write_text("def test_other():\n    pass\n")
    assert project.run("other", "tests/test_gate.py").ret == 11


def test_whole_folder_is_checked_before_deselection(project: Project) -> None:
    del project.bodies[SPEED]
    assert_usage_error(project.run("-k", "training"), f"small: {SPEED}")


def test_what_needs_the_model_is_not_asked_of_an_endpoint(project: Project) -> None:
    project.subjects = {"server": {"learned": True, "access": "endpoint"}}
    message = "training.loads_in_4bit needs the model itself, and server is only a running server"
    assert_usage_error(project.run(), "test_training_loads_in_4bit[server]", message)
    assert not project.results.exists()


def test_an_endpoint_needs_no_test_of_what_it_cannot_show_but_of_all_else(project: Project) -> None:
    project.subjects = {"server": {"learned": True, "access": "endpoint"}}
    project.bodies = {id_: body for id_, body in project.bodies.items() if Need.MODEL not in DOCUMENTED[id_].needs}
    del project.bodies[SPEED]
    result = project.run()
    assert_usage_error(result, f"server: {SPEED}")
    assert "training." not in result.stderr.str()


def test_marks_are_registered(project: Project) -> None:
    assert project.run("--strict-markers").ret == 0
    result = project.pytester.runpytest_inprocess("--markers")
    result.stdout.fnmatch_lines(
        [
            "@pytest.mark.criterion(which): *",
            "@pytest.mark.subject(name, learned, thresholds, access, out_of_scope, scope): *",
        ]
    )


@pytest.mark.parametrize("option", ["-O", "-OO"])
def test_criteria_are_refused_where_python_removes_assertions(project: Project, option: str) -> None:
    project.write()
    result = project.pytester.run(sys.executable, option, "-m", "pytest", "-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.lines == ["ERROR: python -O removes assertions, which criteria rely on; run it without -O", ""]
    assert not project.results.exists()


@pytest.mark.slow
@pytest.mark.parametrize("option", ["-O", "-OO"])
def test_this_project_is_not_tested_without_assertions(option: str) -> None:
    finished = subprocess.run(
        [sys.executable, option, "-m", "pytest", "-n", "0", __file__],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == pytest.ExitCode.USAGE_ERROR
    message = "ERROR: python -O removes the assertions, and they are the tests; run it without -O"
    assert finished.stderr.strip() == message
