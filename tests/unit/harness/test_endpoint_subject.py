"""A subject of which only a running server can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from acceptance.criteria import DOCUMENTED
from harness.criteria import Need

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

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
