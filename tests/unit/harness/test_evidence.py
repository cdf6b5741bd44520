"""What a run leaves behind: JUnit properties, the document, figures; and nothing when no criterion ran."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

SPEED = "style.generation_speed"
SPEED_TEST = "test_style_generation_speed"


def test_junit_shows_properties_and_failure(project: Project) -> None:
    project.bodies[SPEED] = (
        "measured.record(warm_up_count=1, response_count=12, terse_latency_max_s=99.0, verbose_latency_max_s=1.0)"
    )
    project.run("--junitxml=junit.xml")
    suite = ElementTree.parse(project.pytester.path / "junit.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    [case] = [case for case in suite.iter("testcase") if case.get("name") == f"{SPEED_TEST}[small]"]
    properties = [(entry.get("name"), entry.get("value")) for entry in case.iter("property")]
    assert ("criterion", SPEED) in properties
    assert ("outcome", "FAIL") in properties
    assert ("measured.terse_latency_max_s", "99.0") in properties
    assert len(properties) == len({name for name, _ in properties})
    [failure] = case.iter("failure")
    expected = f"{SPEED}: terse_latency_max_s < 30 s does not hold: measured 99"
    assert failure.get("message", "").endswith(expected)
    assert "harness" not in (failure.text or "")


def test_junit_properties_of_a_teardown_error(project: Project) -> None:
    project.arguments[SPEED] = ", broken"
    project.conftest = "@pytest.fixture\ndef broken():\n    yield\n    raise OSError('disk')\n"
    project.run("--junitxml=junit.xml")
    text = (project.pytester.path / "junit.xml").read_text(encoding="utf-8")
    assert text.count('name="outcome" value="PASS"') == 14
    assert text.count('name="outcome" value="FAIL"') == 1


def test_document_holds_evidence_without_paths(project: Project) -> None:
    outside = project.pytester.path.parent / "elsewhere"
    result = project.run(f"--rootdir={project.pytester.path}", f"--acceptance-dir={outside}")
    assert result.ret == 0
    text = (outside / "acceptance.json").read_text(encoding="utf-8")
    assert str(project.pytester.path.parent) not in text
    document = json.loads(text)
    assert document["pytest_arguments"][-2:] == ["--rootdir=.", "--acceptance-dir=elsewhere"]
    assert document["schema_version"] == 2
    assert document["provenance"]["git_commit"] is None
    assert document["subjects"][0]["criteria"][0]["tests"][0]["nodeid"].startswith("tests/test_gate.py::")


def test_nan_is_written_as_json(project: Project) -> None:
    project.bodies[SPEED] += "\nmeasured.record(extra=float('nan'))"
    assert project.run().ret == 0
    assert project.criterion(SPEED)["measurements"]["extra"] == "nan"


def test_attachments_become_figures(project: Project) -> None:
    project.bodies[SPEED] += """
measured.attach("latency", kind="latency", values=[1.0, 2.0], unit="s", label="TERSE <b>")
measured.attach("latency", kind="latency", values=[3.0, 4.0], unit="s", label="VERBOSE")
"""
    assert project.run().ret == 0
    [figure] = (project.results / "figures").iterdir()
    assert figure.name == f"small-{SPEED}-latency.svg"
    assert "threshold 30 s" in figure.read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [("--collect-only",), ("-k", "nothing_like_this")])
def test_inactive_gate_changes_and_prints_nothing(project: Project, arguments: tuple[str, ...]) -> None:
    result = project.run(*arguments)
    assert result.ret == (0 if arguments == ("--collect-only",) else 5)
    assert "verdict" not in result.stdout.str()
    assert not project.results.exists()


def test_run_without_criterion_tests_is_untouched(project: Project) -> None:
    project.bodies = {}
    project.extra = "def test_other():\n    pass\n"
    result = project.run()
    assert result.ret == 0
    assert "verdict" not in result.stdout.str()
    assert not project.results.exists()
