"""A subject of which only a running server can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from acceptance.criteria import DOCUMENTED
from harness.criteria import Need
from harness.judge_again import judge_again
from harness.seal import recheck

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

SPEED_MEASURES = DOCUMENTED["style.generation_speed"].required_measures
OUT_OF_SCOPE = [id_ for id_, criterion in DOCUMENTED.items() if Need.MODEL in criterion.needs]


@pytest.fixture
def outside(project: Project, passing: dict[str, dict[str, Any]]) -> Project:
    """A project that asks a server for what can be seen from outside, and records nothing else."""
    project.subjects = {"server": {"learned": True, "access": "endpoint"}}
    project.bodies = {}
    for id_, measures in passing.items():
        if id_ not in OUT_OF_SCOPE:
            inside = {bound.measure for bound in DOCUMENTED[id_].bounds if Need.MODEL in bound.needs}
            project.bodies[id_] = f"measured.record(**{ {k: v for k, v in measures.items() if k not in inside}!r})"
    return project


def test_an_endpoint_is_accepted_on_what_it_can_show(outside: Project) -> None:
    result = outside.run()
    assert result.ret == 0
    document = outside.document()
    [subject] = document["subjects"]
    assert (document["decision"], subject["decision"], subject["access"]) == ("ACCEPTED", "ACCEPTED", "endpoint")
    assert subject["out_of_scope"] == OUT_OF_SCOPE
    assert [entry["id"] for entry in subject["criteria"]] == [id_ for id_ in DOCUMENTED if id_ not in OUT_OF_SCOPE]
    separation = outside.criterion("style.token_separation", "server")
    assert [bound["measure"] for bound in separation["bounds"]] == [
        "question_count",
        "preset_terse_median_tokens",
        "preset_terse_whole_share",
        "preset_verbose_median_tokens",
    ]


def test_an_endpoint_without_a_criterion_in_its_scope_is_incomplete(outside: Project) -> None:
    outside.bodies["deployment.error_handling"] = "pytest.skip('no time')"
    assert outside.run().ret == 11


def test_model_and_endpoint_side_by_side(outside: Project, passing: dict[str, dict[str, Any]]) -> None:
    outside.extra = f"""
        MODEL = pytest.mark.subject(name="small", learned=True)
        PASSING = {passing!r}

        @MODEL
        @pytest.mark.parametrize(
            "values", [pytest.param(values, marks=pytest.mark.criterion(id_)) for id_, values in PASSING.items()]
        )
        def test_model(values, measured):
            measured.record(**values)
    """
    assert outside.run().ret == 0
    scopes = {subject["name"]: subject["out_of_scope"] for subject in outside.document()["subjects"]}
    assert scopes == {"server": OUT_OF_SCOPE, "small": []}


REASON = "the protocol has no such route"
SCOPE = "chat completions"


@pytest.fixture
def declaring(outside: Project) -> Project:
    """A server whose protocol cannot show one criterion and one measure of another, which its tests do not record."""
    declared = {"deployment.health_endpoint": REASON, "deployment.generate_endpoint/miscounted_response_count": REASON}
    outside.subjects = {"server": {"learned": True, "access": "endpoint", "scope": SCOPE, "out_of_scope": declared}}
    outside.bodies["deployment.health_endpoint"] = "raise AssertionError('asked although out of scope')"
    outside.bodies["deployment.generate_endpoint"] = (
        "measured.record(response_count=6, valid_response_share=1.0, misplaced_answer_count=0)"
    )
    return outside


def test_what_a_protocol_cannot_show_is_declared_and_named(declaring: Project) -> None:
    result = declaring.run()
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "server: ACCEPTED",
            f"  scope: {SCOPE}",
            "  out of scope: deployment.health_endpoint, deployment.generate_endpoint/miscounted_response_count"
            f" ({REASON})",
        ]
    )
    [subject] = declaring.document()["subjects"]
    assert subject["out_of_scope"] == [
        id_ for id_ in DOCUMENTED if id_ in [*OUT_OF_SCOPE, "deployment.health_endpoint"]
    ]
    assert subject["out_of_scope_reasons"] == {
        "deployment.health_endpoint": REASON,
        "deployment.generate_endpoint/miscounted_response_count": REASON,
    }
    bounds = declaring.criterion("deployment.generate_endpoint", "server")["bounds"]
    assert [bound["measure"] for bound in bounds] == [
        "response_count",
        "valid_response_share",
        "misplaced_answer_count",
    ]
    for name in ("report.html", "report.md"):
        text = (declaring.results / name).read_text(encoding="utf-8")
        assert (REASON in text, SCOPE in text) == (True, True)


def test_a_measure_that_is_not_declared_is_still_needed(declaring: Project) -> None:
    declaring.bodies["deployment.generate_endpoint"] = "measured.record(response_count=6, valid_response_share=1.0)"
    assert declaring.run().ret == 10
    assert (
        "misplaced_answer_count was not measured"
        in declaring.criterion("deployment.generate_endpoint", "server")["reason"]
    )


def test_a_test_without_its_criterion_in_scope_needs_no_test_either(declaring: Project) -> None:
    del declaring.bodies["deployment.health_endpoint"]
    assert declaring.run("tests").ret == 0


def test_with_workers_the_declaration_arrives(declaring: Project) -> None:
    result = declaring.run_in_processes("-n", "2")
    assert result.ret == 0
    [subject] = declaring.document()["subjects"]
    assert (subject["scope"], len(subject["out_of_scope_reasons"])) == (SCOPE, 2)


def test_what_was_declared_stays_so_when_judged_again(declaring: Project) -> None:
    assert declaring.run().ret == 0
    again = judge_again(declaring.results)
    [before], [after] = declaring.document()["subjects"], again.document["subjects"]
    assert after["decision"] == "ACCEPTED"
    for name in ("scope", "out_of_scope", "out_of_scope_reasons"):
        assert after[name] == before[name]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"out_of_scope": {"deployment.generate_endpoint": " "}}, "out of scope without a reason"),
        ({"out_of_scope": {"deployment.unknown": REASON}}, "not in the criteria set verbosity: deployment.unknown"),
        ({"access": "model", "out_of_scope": {"style.consistency": REASON}}, "only a running server has anything"),
        (
            {"out_of_scope": {id_: REASON for id_ in DOCUMENTED if id_ not in OUT_OF_SCOPE}},
            "no criterion of the set verbosity is in scope",
        ),
        (
            {"out_of_scope": {f"style.generation_speed/{m}": REASON for m in SPEED_MEASURES}},
            "no bound of style.generation_speed is in scope; declare the criterion instead",
        ),
    ],
)
def test_a_declaration_that_hides_something_is_refused(
    settings: dict[str, Any], complaint: str, declaring: Project
) -> None:
    declaring.subjects["server"].update(settings)
    result = declaring.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{complaint}*"])


def test_a_declaration_is_sealed_and_judged_again(declaring: Project) -> None:
    declaring.extra = """
        @pytest.fixture(autouse=True)
        def named(identify):
            identify("server", {"adapter": "abc"})
    """
    assert declaring.run().ret == 0
    verdict = declaring.verdict()
    assert recheck(verdict, DOCUMENTED) == []
    verdict["subject"]["out_of_scope_reasons"]["style.consistency"] = REASON
    complaints = recheck(verdict, DOCUMENTED)
    assert "subject.out_of_scope_reasons: edited after the verdict was sealed" in complaints
