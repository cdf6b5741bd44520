"""What a run leaves for later: the verdict bound to an artefact, the last accepted run, tables, and the origin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from harness.session import AcceptanceSession

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

SPEED = "style.generation_speed"


def identified(project: Project, adapter: str = "'abc'") -> None:
    """Let the first criterion's test say which adapter it judges."""
    project.arguments["training.loads_in_4bit"] = ", identify"
    body = project.bodies["training.loads_in_4bit"].rpartition("\n")[2]
    project.bodies["training.loads_in_4bit"] = f"identify(target, {{'adapter_sha256': {adapter}}})\n{body}"


def test_the_verdict_names_the_artefact(project: Project) -> None:
    identified(project)
    assert project.run().ret == 0
    verdict = project.verdict()
    assert (verdict["decision"], verdict["identity"]) == ("ACCEPTED", {"adapter_sha256": "abc"})
    assert verdict["subject"]["name"] == "small"
    assert project.document()["subjects"][0]["identity"] == {"adapter_sha256": "abc"}


def test_a_verdict_that_is_no_acceptance_says_so(project: Project) -> None:
    identified(project)
    project.bodies[SPEED] = "pass"
    assert project.run().ret == 10
    assert project.verdict()["decision"] == "REJECTED"


def test_without_an_identity_no_verdict_is_left_not_even_an_old_one(project: Project) -> None:
    project.results.mkdir()
    stale = [project.results / name for name in ("verdict.json", "verdict-small.json")]
    for file in stale:
        file.write_text("{}", encoding="utf-8")
    assert project.run().ret == 0
    assert not any(file.exists() for file in stale)


def test_a_report_that_breaks_leaves_no_earlier_verdict(project: Project) -> None:
    identified(project)
    assert project.run().ret == 0
    project.bodies[SPEED] = "pass"
    project.conftest = """
        import harness.report.html

        def broken(*_):
            raise OSError("no space left")

        harness.report.html.write_report = broken
    """
    result = project.run_in_processes()
    assert result.ret != 0
    assert "no space left" in result.stdout.str() + result.stderr.str()
    assert project.verdict()["decision"] == "REJECTED"


def test_each_of_several_subjects_has_a_verdict(project: Project) -> None:
    project.subjects = {"small": {"learned": True}, "random": {"learned": False}}
    identified(project)
    assert project.run().ret == 11
    decisions = {name: project.verdict(f"verdict-{name}.json")["decision"] for name in project.subjects}
    assert decisions == {"small": "ACCEPTED", "random": "INCOMPLETE"}
    assert not (project.results / "verdict.json").exists()


@pytest.mark.parametrize(
    ("identity", "reason"),
    [("'other'", "ValueError: small changed while it was judged"), ("object()", "TypeError: Object of type object")],
)
def test_a_changed_or_unwritable_identity_fails(project: Project, identity: str, reason: str) -> None:
    identified(project)
    project.arguments[SPEED] = ", identify"
    project.bodies[SPEED] += f"\nidentify(target, {{'adapter_sha256': {identity}}})"
    assert project.run().ret == 10
    assert project.criterion(SPEED)["reason"].startswith(reason)
    assert project.verdict()["identity"] == {"adapter_sha256": "abc"}


def test_the_same_identity_may_be_given_twice() -> None:
    session = AcceptanceSession.__new__(AcceptanceSession)
    session.identities = {}
    for _ in range(2):
        session.identify("small", {"adapter": "abc", "environment": {"device": "cpu"}})
    assert session.identities == {"small": {"adapter": "abc", "environment": {"device": "cpu"}}}


def test_the_last_accepted_run_stays_and_later_runs_are_compared_with_it(project: Project) -> None:
    assert project.run().ret == 0
    accepted = project.results / "accepted.json"
    first = accepted.read_text(encoding="utf-8")
    assert json.loads(first) == project.document()
    good = project.bodies[SPEED]
    project.bodies[SPEED] = (
        "measured.record(warm_up_count=1, response_count=12, terse_latency_max_s=45.5, verbose_latency_max_s=1.0)"
    )
    assert project.run().ret == 10
    assert accepted.read_text(encoding="utf-8") == first
    report = (project.results / "report.md").read_text(encoding="utf-8")
    assert "45.5" in report
    assert "## Changes" in report
    project.bodies[SPEED] = good
    assert project.run().ret == 0
    assert json.loads(accepted.read_text(encoding="utf-8")) == project.document()


def test_the_first_run_has_no_changes(project: Project) -> None:
    assert project.run().ret == 0
    assert "## Changes" not in (project.results / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"schema_version": 1}'])
def test_an_unreadable_accepted_run_costs_nothing(project: Project, content: str) -> None:
    project.results.mkdir()
    (project.results / "accepted.json").write_text(content, encoding="utf-8")
    assert project.run().ret == 0
    assert json.loads((project.results / "accepted.json").read_text(encoding="utf-8")) == project.document()


def test_tables_are_shown(project: Project) -> None:
    project.bodies[SPEED] += "\nmeasured.show('Slowest answers', ['question', 'tokens'], [['Why <b>?', 7]])"
    assert project.run().ret == 0
    [table] = project.criterion(SPEED)["tables"]
    assert table == {"name": "Slowest answers", "columns": ["question", "tokens"], "rows": [["Why <b>?", 7]]}
    page = (project.results / "report.html").read_text(encoding="utf-8")
    assert "Slowest answers" in page
    assert "Why &lt;b&gt;?" in page
    assert "Why <b>?" not in page


def test_the_hook_adds_to_the_provenance(project: Project) -> None:
    project.conftest = """
        def pytest_acceptance_provenance(config):
            return {"gpu": "none", "driver": {"load": float("nan")}}
    """
    project.pytester.makepyfile(**{"tests/conftest": "def pytest_acceptance_provenance(config):\n    return None\n"})
    assert project.run().ret == 0
    provenance = project.document()["provenance"]
    assert (provenance["gpu"], provenance["driver"]) == ("none", {"load": "nan"})
    assert provenance["python_version"]


def test_the_hook_is_not_asked_without_criteria(project: Project) -> None:
    project.bodies = {}
    project.extra = "def test_other():\n    pass\n"
    project.conftest = "def pytest_acceptance_provenance(config):\n    raise RuntimeError('must not be asked')\n"
    assert project.run().ret == 0
