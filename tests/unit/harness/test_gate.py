"""The plugin end to end: no way to look green without thirteen passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.criteria import DOCUMENTED
from harness.criteria import Need

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

SPEED = "style.generation_speed"
SPEED_TEST = "test_style_generation_speed"
LEARNED_ONLY = {id_ for id_, criterion in DOCUMENTED.items() if Need.LEARNED_WEIGHTS in criterion.needs}


def test_all_pass_is_accepted(project: Project) -> None:
    result = project.run()
    assert result.ret == 0
    assert set(project.outcomes().values()) == {"PASS"}
    assert project.document()["decision"] == "ACCEPTED"
    result.stdout.fnmatch_lines(["small: ACCEPTED", "verdict: ACCEPTED", "report: acceptance-results/report.html"])
    assert (project.results / "report.md").is_file()
    assert (project.results / "report.html").is_file()


@pytest.mark.parametrize(
    ("body", "outcome", "reason", "status"),
    [
        ("measured.record(warm_up_count=1, response_count=12, terse_latency_max_s=1.0)", "FAIL", "not measured", 10),
        (
            "measured.record(warm_up_count=1, response_count=12, terse_latency_max_s=float('nan'), "
            "verbose_latency_max_s=1.0)",
            "FAIL",
            "terse_latency_max_s < 30 s does not hold: measured nan",
            10,
        ),
        ("pass", "FAIL", "warm_up_count was not measured; response_count was not measured", 10),
        ("raise ValueError('first\\nsecond')", "FAIL", "ValueError: first", 10),
        ("assert 1 == 2", "FAIL", "AssertionError: assert 1 == 2", 10),
        ("pytest.skip('no device')", "NOT_RUN", "no device", 11),
        ("import unittest; raise unittest.SkipTest('no device')", "NOT_RUN", "no device", 11),
        ("pytest.importorskip('absent_module')", "NOT_RUN", "could not import", 11),
        ("pytest.xfail('known')", "FAIL", "xfail is not an acceptance", 10),
        (
            "measured.record(response_count=12); measured.record(response_count=12)",
            "FAIL",
            "recorded twice",
            10,
        ),
        ("measured.record(response_count=None)", "FAIL", "TypeError: response_count", 10),
    ],
)
def test_body_decides_outcome(project: Project, body: str, outcome: str, reason: str, status: int) -> None:
    project.bodies[SPEED] = body
    result = project.run()
    assert result.ret == status
    entry = project.criterion(SPEED)
    assert entry["outcome"] == outcome
    assert reason in entry["reason"]
    others = {id_: value for id_, value in project.outcomes().items() if id_ != SPEED}
    assert set(others.values()) == {"PASS"}


@pytest.mark.parametrize("decorator", ["@pytest.mark.xfail", "@pytest.mark.xfail(strict=True)"])
@pytest.mark.parametrize("body", ["", "raise ValueError"])
def test_xfail_mark_is_a_failure(project: Project, decorator: str, body: str) -> None:
    project.decorators[SPEED] = decorator
    project.bodies[SPEED] = body or project.bodies[SPEED]
    result = project.run()
    assert result.ret == 10
    result.assert_outcomes(passed=14, failed=1)
    assert project.criterion(SPEED)["reason"] == "xfail is not an acceptance"


@pytest.mark.parametrize("how", ["@pytest.mark.xfail(run=False)", "", "dynamic"])
def test_xfail_before_or_inside_the_call_is_a_failure(project: Project, how: str) -> None:
    if how == "dynamic":
        project.arguments[SPEED] = ", request"
        project.bodies[SPEED] += "\nrequest.applymarker(pytest.mark.xfail(reason='known'))"
    elif how:
        project.decorators[SPEED] = how
    else:
        project.arguments[SPEED] = ", broken"
        project.conftest = "@pytest.fixture\ndef broken():\n    pytest.xfail('known')\n"
    assert project.run().ret == 10
    assert project.criterion(SPEED)["reason"] == "xfail is not an acceptance"


def test_all_skipped_is_incomplete(project: Project) -> None:
    project.bodies = dict.fromkeys(DOCUMENTED, "pytest.skip('no device')")
    result = project.run()
    assert result.ret == 11
    result.stdout.fnmatch_lines(["  NOT_RUN, no device: training.loads_in_4bit, *", "verdict: INCOMPLETE"])


def test_skip_mark_does_not_run(project: Project) -> None:
    project.decorators[SPEED] = "@pytest.mark.skip(reason='later')"
    assert project.run().ret == 11
    assert (project.criterion(SPEED)["outcome"], project.criterion(SPEED)["reason"]) == ("NOT_RUN", "later")


def test_setup_error_does_not_run(project: Project) -> None:
    project.arguments[SPEED] = ", broken"
    project.conftest = "@pytest.fixture\ndef broken():\n    raise OSError('disk')\n"
    result = project.run()
    assert result.ret == 11
    result.assert_outcomes(passed=14, errors=1)
    entry = project.criterion(SPEED)
    assert (entry["outcome"], entry["reason"]) == ("NOT_RUN", "setup failed: OSError: disk")


def test_teardown_error_fails(project: Project) -> None:
    project.arguments[SPEED] = ", broken"
    project.conftest = "@pytest.fixture\ndef broken():\n    yield\n    raise OSError('disk')\n"
    assert project.run().ret == 10
    entry = project.criterion(SPEED)
    assert (entry["outcome"], entry["reason"]) == ("FAIL", "teardown failed: OSError: disk")
    assert entry["measurements"]["response_count"] == 12


def test_skip_in_teardown_is_no_pass(project: Project) -> None:
    project.arguments[SPEED] = ", odd"
    project.conftest = "@pytest.fixture\ndef odd():\n    yield\n    pytest.skip('late')\n"
    assert project.run().ret == 11
    assert project.criterion(SPEED)["outcome"] == "NOT_RUN"


@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [("pass", 0, "PASS"), ("assert False", 10, "FAIL"), ("pytest.skip('x')", 11, "NOT_RUN")],
)
def test_subtests_count(project: Project, body: str, status: int, outcome: str) -> None:
    project.arguments[SPEED] = ", subtests"
    project.bodies[SPEED] += f"\nwith subtests.test('part'):\n    {body}"
    assert project.run().ret == status
    assert project.criterion(SPEED)["outcome"] == outcome


def test_outer_wrapper_cannot_hide_a_failed_bound(project: Project) -> None:
    project.bodies[SPEED] = "pass"
    project.conftest = """
        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_call(item):
            try:
                return (yield)
            except BaseException:
                return None
    """
    result = project.run()
    assert result.ret == 10
    result.assert_outcomes(passed=14, failed=1)


def test_outer_wrapper_failure_after_a_pass_fails(project: Project) -> None:
    project.conftest = f"""
        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_call(item):
            yield
            if "{SPEED_TEST}" in item.name:
                raise RuntimeError("late")
    """
    assert project.run().ret == 10
    assert project.criterion(SPEED)["reason"] == "RuntimeError: late"


def test_rerun_does_not_hide_the_first_failure(project: Project) -> None:
    project.bodies[SPEED] = (
        f"import builtins\nbuiltins.attempts = getattr(builtins, 'attempts', 0) + 1\n"
        f"assert builtins.attempts % 2 == 0\n{project.bodies[SPEED]}"
    )
    project.conftest = f"""
        from _pytest.runner import runtestprotocol
        def pytest_runtest_protocol(item, nextitem):
            if "{SPEED_TEST}" not in item.name:
                return None
            runtestprotocol(item, log=False, nextitem=nextitem)
            for report in runtestprotocol(item, log=False, nextitem=nextitem):
                item.ihook.pytest_runtest_logreport(report=report)
            return True
    """
    result = project.run()
    result.assert_outcomes(passed=15)
    assert result.ret == 10


@pytest.mark.parametrize("arguments", [("-k", "training"), ("--deselect", f"tests/test_gate.py::{SPEED_TEST}")])
def test_subset_is_incomplete(project: Project, arguments: tuple[str, ...]) -> None:
    assert project.run(*arguments).ret == 11
    assert project.criterion(SPEED)["reason"] == "not selected or not reached"
    assert project.outcomes()["training.completes"] == "PASS"


def test_node_id_is_incomplete(project: Project) -> None:
    result = project.run(f"tests/test_gate.py::{SPEED_TEST}")
    assert result.ret == 11
    assert [id_ for id_, outcome in project.outcomes().items() if outcome == "PASS"] == [SPEED]


def test_one_of_two_tests_of_a_criterion_deselected_is_incomplete(project: Project) -> None:
    project.extra = f"""
        @pytest.mark.criterion({SPEED!r})
        def test_second(measured, target):
            measured.record(warm_up_count=1, response_count=12, terse_latency_max_s=1, verbose_latency_max_s=1)
    """
    assert project.run("-k", "not second").ret == 11
    assert project.run().ret == 0


def test_worst_of_two_tests_counts(project: Project) -> None:
    project.extra = f"@pytest.mark.criterion({SPEED!r})\ndef test_second(measured, target):\n    pass\n"
    assert project.run().ret == 10
    assert [entry["outcome"] for entry in project.criterion(SPEED)["tests"]] == ["PASS", "FAIL"]


def test_stop_at_first_failure_leaves_the_rest_not_run(project: Project) -> None:
    project.bodies["training.completes"] = "assert False"
    assert project.run("-x").ret == 10
    assert project.outcomes()["training.gpu_memory"] == "PASS"
    assert project.outcomes()["deployment.error_handling"] == "NOT_RUN"


def test_exit_with_status_zero_is_incomplete(project: Project) -> None:
    project.bodies["training.completes"] = "pytest.exit('enough', returncode=0)"
    assert project.run().ret == 11
    assert project.outcomes()["training.completes"] == "NOT_RUN"


def test_interruption_in_the_last_teardown_keeps_pytests_status(project: Project) -> None:
    project.arguments["deployment.error_handling"] = ", interrupted"
    project.conftest = "@pytest.fixture\ndef interrupted():\n    yield\n    pytest.exit('stop')\n"
    assert project.run().ret == 2
    entry = project.criterion("deployment.error_handling")
    assert (entry["outcome"], entry["reason"]) == ("NOT_RUN", "interrupted before its teardown ended")


def test_setup_only_is_incomplete(project: Project) -> None:
    assert project.run("--setup-only").ret == 11


def test_random_weights_are_never_accepted(project: Project) -> None:
    project.subjects = {"random": {"learned": False}}
    project.arguments["style.consistency"] = ", expensive"
    project.conftest = "@pytest.fixture\ndef expensive():\n    raise RuntimeError('must not be built')\n"
    result = project.run()
    assert result.ret == 11
    result.assert_outcomes(passed=11, skipped=4)
    outcomes = project.outcomes("random")
    assert {id_ for id_, outcome in outcomes.items() if outcome == "NOT_APPLICABLE"} == LEARNED_ONLY
    result.stdout.fnmatch_lines(["  NOT_APPLICABLE, random weights cannot show this: training.loss_converges, *"])


def test_two_subjects_need_both(project: Project) -> None:
    project.subjects = {"small": {"learned": True}, "random": {"learned": False}}
    assert project.run().ret == 11
    decisions = {entry["name"]: entry["decision"] for entry in project.document()["subjects"]}
    assert decisions == {"small": "ACCEPTED", "random": "INCOMPLETE"}


def test_unselected_subject_is_not_judged_but_named(project: Project) -> None:
    project.subjects = {"small": {"learned": True}, "random": {"learned": False}}
    result = project.run("-k", "small")
    assert result.ret == 0
    assert project.document()["subjects_not_selected"] == ["random"]
    result.stdout.fnmatch_lines(["not judged, no test selected: random"])


def test_subject_threshold_replaces_the_documented_one(project: Project) -> None:
    project.subjects["small"]["thresholds"] = {f"{SPEED}/terse_latency_max_s": 10.0}
    assert project.run().ret == 10
    assert project.criterion(SPEED)["violated"] == ["terse_latency_max_s"]
    assert "(documented: \\< 30 s)" in (project.results / "report.md").read_text(encoding="utf-8")


def test_other_failing_test_keeps_the_run_failed(project: Project) -> None:
    project.extra = "def test_other():\n    assert False\n"
    result = project.run()
    assert result.ret == 1
    assert project.document()["decision"] == "ACCEPTED"
    result.stdout.fnmatch_lines(["exit status 1: the run failed outside the criteria"])


def test_collection_error_elsewhere_keeps_the_run_failed(project: Project) -> None:
    project.write()
    project.pytester.path.joinpath("tests", "test_broken.py").write_text("import absent_module\n")
    assert project.run().ret == 2
    assert project.run("--continue-on-collection-errors").ret == 1
