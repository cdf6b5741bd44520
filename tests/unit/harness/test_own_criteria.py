"""Criteria of a project's own: one mark in one file, required like the documented ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.criteria import DOCUMENTED

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

OWN = """
    import pytest
    from harness.criteria import Bound, Criterion, Need
    from harness.statistics import Proportion

    POLITE = Criterion(
        "own.politeness",
        "Answers are polite",
        (Bound("polite_share", ">=", 0.8, confidence=0.9), Bound("insult_count", "==", 0, "insults")),
        "house style",
    )

    @pytest.mark.criterion(POLITE)
    def test_polite(measured, target):
        measured.record(polite_share=Proportion(SUCCESSES, 40), insult_count=0)
"""


def own(project: Project, successes: int = 40, source: str = OWN) -> None:
    """Write the project's own criterion into a file of its own."""
    text = source.replace("SUCCESSES", str(successes))
    project.pytester.makepyfile(**{"tests/test_own": text})


@pytest.mark.parametrize(
    ("successes", "outcome", "decision", "status"),
    [(40, "PASS", "ACCEPTED", 0), (35, "UNDECIDED", "INCOMPLETE", 11), (10, "FAIL", "REJECTED", 10)],
)
def test_own_criterion_decides_with_the_documented_ones(
    project: Project, successes: int, outcome: str, decision: str, status: int
) -> None:
    own(project, successes)
    result = project.run()
    assert result.ret == status
    assert set(project.outcomes().values()) == {"PASS"}
    entry = project.criterion("own.politeness")
    assert (entry["outcome"], entry["documented"], entry["source"]) == (outcome, False, "house style")
    assert entry["bounds"][0]["limit"] == ">= 0.8 at 90% confidence"
    assert entry["bounds"][0]["documented_limit"] is None
    assert entry["measurements"]["polite_share"]["successes"] == successes
    document = project.document()
    assert [document["decision"], document["subjects"][0]["decision"]] == [decision, decision]
    assert [entry["id"] for entry in document["subjects"][0]["criteria"]] == [*DOCUMENTED, "own.politeness"]
    assert {entry["documented"] for entry in document["subjects"][0]["criteria"][:-1]} == {True}
    assert "own.politeness" in result.stdout.str()
    assert "own.politeness" in (project.results / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [("-k", "not polite"), ("--deselect", "tests/test_own.py")])
def test_deselected_own_criterion_is_incomplete(project: Project, arguments: tuple[str, ...]) -> None:
    own(project)
    assert project.run(*arguments).ret == 11
    entry = project.criterion("own.politeness")
    assert (entry["outcome"], entry["reason"]) == ("NOT_RUN", "not selected or not reached")


def test_skipped_own_criterion_is_incomplete(project: Project) -> None:
    own(project, source=OWN.replace("measured.record(", "pytest.skip('later'); measured.record("))
    assert project.run().ret == 11
    assert project.criterion("own.politeness")["reason"] == "later"


def test_own_criterion_is_asked_only_of_the_subject_that_has_a_test_of_it(project: Project) -> None:
    project.subjects = {"small": {"learned": True}, "large": {"learned": True}}
    mark = "@pytest.mark.subject(name='large', learned=True)\n    @pytest.mark.criterion(POLITE)"
    source = OWN.replace("@pytest.mark.criterion(POLITE)", mark).replace("(measured, target)", "(measured)")
    own(project, successes=10, source=source)
    assert project.run().ret == 10
    decisions = {subject["name"]: subject["decision"] for subject in project.document()["subjects"]}
    assert decisions == {"small": "ACCEPTED", "large": "REJECTED"}


def test_two_tests_may_share_one_own_criterion(project: Project) -> None:
    second = "@pytest.mark.criterion(POLITE)\n    def test_second(measured, target):\n        pass\n"
    own(project, source=OWN + "\n    " + second)
    assert project.run().ret == 10
    assert [test["outcome"] for test in project.criterion("own.politeness")["tests"]] == ["PASS", "FAIL"]


def test_own_criterion_that_needs_learned_weights_does_not_apply_to_random_ones(project: Project) -> None:
    project.subjects = {"random": {"learned": False}}
    own(project, source=OWN.replace('"house style",', '"house style", needs=(Need.LEARNED_WEIGHTS,)'))
    assert project.run().ret == 11
    assert project.criterion("own.politeness", "random")["outcome"] == "NOT_APPLICABLE"


def test_conflicting_definitions_are_refused(project: Project) -> None:
    own(project)
    project.extra = """
        from harness.criteria import Bound, Criterion
        STRICT = Criterion("own.politeness", "Answers are polite", (Bound("insult_count", "==", 0),), "house style")

        @pytest.mark.criterion(STRICT)
        def test_strict(measured, target):
            pass
    """
    result = project.run()
    assert result.ret == 4
    assert "criterion own.politeness is described differently by tests/test_gate.py::test_strict" in result.stderr.str()


def test_documented_id_cannot_be_redefined(project: Project) -> None:
    own(project, source=OWN.replace("own.politeness", "style.consistency"))
    result = project.run()
    assert result.ret == 4
    assert "style.consistency is in the set verbosity; choose another id" in result.stderr.str()


def test_documented_criterion_may_be_given_as_the_object(project: Project) -> None:
    source = project.bodies.pop("style.consistency")
    project.extra = f"""
        from acceptance.criteria import DOCUMENTED

        @pytest.mark.criterion(DOCUMENTED["style.consistency"])
        def test_consistency(measured, target):
            {source}
    """
    assert project.run().ret == 0
    assert project.criterion("style.consistency")["documented"] is True


def test_wrong_own_criterion_is_a_collection_error(project: Project) -> None:
    own(project, source=OWN.replace("own.politeness", "politeness"))
    result = project.run()
    assert result.ret == 2
    assert "a criterion's id is group.name, got 'politeness'" in result.stdout.str()
