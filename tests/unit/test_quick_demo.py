"""``verbosity demo --quick`` shows an ACCEPTED and a REJECTED without a model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands import quick_demo
from pipeline.errors import PipelineError
from pipeline.files import RECORDED_RUNS


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may damage."""
    folder = shutil.copytree(RECORDED_RUNS, tmp_path / "recorded")
    monkeypatch.setattr(quick_demo, "RECORDED_RUNS", folder)
    return folder


def test_a_newcomer_sees_both_verdicts_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--quick", "--output", str(tmp_path / "out")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["verdict", "ACCEPTED", "REJECTED"] in lines
    assert ["style.token_separation", "PASS", "FAIL"] in lines
    assert ["training.completes", "PASS", "PASS"] in lines
    (why,) = [line for line in lines if line[:1] == ["style.token_separation:"]]
    assert "rejected early by plan" in " ".join(why)
    assert {path.parent.name for path in (tmp_path / "out" / "quick").glob("*/report.html")} == {"healthy", "broken"}


@pytest.mark.slow
def test_another_verdict_than_the_recorded_one_is_no_success(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(recordings / "broken")
    shutil.copytree(recordings / "healthy", recordings / "broken")
    assert quick_demo.run_quick_demo(tmp_path / "out") == 1
    assert ["verdict", "ACCEPTED", "ACCEPTED"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_recording_that_cannot_be_judged_is_named(recordings: Path, tmp_path: Path) -> None:
    (recordings / "broken" / "acceptance.json").unlink()
    with pytest.raises(PipelineError, match=r"broken: cannot be judged: .*acceptance\.json"):
        quick_demo.run_quick_demo(tmp_path / "out")
