"""What a report opens with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.report.html import write_report
from harness.report.view import key_bounds
from tests.unit.harness.report_documents import SPEED, accepted_document, bound, criterion

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project


def test_of_each_group_the_bound_closest_to_its_limit() -> None:
    style = criterion(
        "style.a",
        [bound("share", ">=", 0.9, margin=0.2), bound("answer_count", ">=", 20, margin=0.0)],
        {"share": 0.95, "answer_count": 20},
    )
    speed = criterion("style.b", [bound("latency_s", "<", 30.0, margin=0.1)], {"latency_s": 27.0})
    server = criterion("deployment.c", [bound("ready", "==", True, margin=None)], {"ready": True})
    assert [row["measure"] for row in key_bounds({"criteria": [style, speed, server]})] == ["latency_s"]


def test_what_does_not_hold_comes_alone() -> None:
    healthy = criterion("style.a", [bound("share", ">=", 0.9, margin=0.01)], {"share": 0.95})
    broken = criterion(SPEED, [bound("latency_s", "<", 30.0, state="violated", margin=-0.2)], {"latency_s": 36.0})
    assert [row["measure"] for row in key_bounds({"criteria": [healthy, broken]})] == ["latency_s"]


def test_figures_and_samples_stand_before_the_criteria(tmp_path: Path) -> None:
    page = write_report(accepted_document(), tmp_path).read_text(encoding="utf-8")
    places = [
        page.index(f"<h3>{title}</h3>") for title in ("Closest to their limits", "Figures", "Samples", "Criteria")
    ]
    assert places == sorted(places)


def test_a_criterions_outcome_is_said_when_its_test_has_run(project: Project) -> None:
    project.bodies[SPEED] = "measured.record(response_count=12)"
    output = project.run("-v").stdout.str()
    assert "PASS style.token_separation" in output
    assert f"FAIL {SPEED} (" in output
