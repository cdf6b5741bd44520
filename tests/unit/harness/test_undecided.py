"""A sample too small to tell is neither a pass nor a rejection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

SPEED = "style.generation_speed"
TOO_SMALL = (
    "measured.record(answer_count=20, seq_rep_4_mean=0.01, long_repeat_answer_share=Proportion(0, 200), "
    "looping_answer_share=Proportion(0, 28))"
)
"""Measures of style.no_repetition that leave one bound undecided."""


def test_an_undecided_criterion_fails_its_test_and_leaves_the_run_incomplete(project: Project) -> None:
    project.bodies["style.no_repetition"] = TOO_SMALL
    result = project.run("--junitxml=junit.xml")
    assert result.ret == 11
    result.assert_outcomes(passed=14, failed=1)
    entry = project.criterion("style.no_repetition")
    assert (entry["outcome"], entry["violated"]) == ("UNDECIDED", [])
    assert entry["reason"] == (
        "looping_answer_share <= 0.1 at 95% confidence is undecided by 0 of 28, further samples needed at this share: 1"
    )
    states = {bound["measure"]: (bound["state"], bound["margin"]) for bound in entry["bounds"]}
    assert states["looping_answer_share"] == ("undecided", 1.0)
    assert states["answer_count"] == ("holds", 0.0)
    assert entry["measurements"]["looping_answer_share"] == {"successes": 0, "trials": 28, "share": 0.0}
    assert project.document()["decision"] == "INCOMPLETE"
    assert not (project.results / "accepted.json").exists()
    result.stdout.fnmatch_lines(["verdict: INCOMPLETE", "UNDECIDED style.no_repetition *test_style_no_repetition*"])
    junit = (project.pytester.path / "junit.xml").read_text(encoding="utf-8")
    assert 'name="measured.looping_answer_share" value="0 of 28"' in junit
    assert 'name="outcome" value="UNDECIDED"' in junit


def test_undecided_beside_a_failure_is_rejected(project: Project) -> None:
    project.bodies["style.no_repetition"] = TOO_SMALL
    project.bodies[SPEED] = "pass"
    assert project.run().ret == 10
    assert [project.outcomes()[id_] for id_ in ("style.no_repetition", SPEED)] == ["UNDECIDED", "FAIL"]
