"""The gate of the wheel, in an empty folder without a checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.run_folder import RunFolder
from tests.smoke.gate import results
from tests.smoke.wheel import ROOT, without_checkout
from tests.unit.pipeline.service.fakes import Served, listening


def gate(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the installed packages in a folder."""
    environment = without_checkout(PYTHONPATH=str(site))
    finished = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert str(ROOT / "acceptance") not in finished.stdout + finished.stderr
    return finished


def test_a_running_server_is_judged(site: Path, tmp_path: Path) -> None:
    with listening(Served().app) as url:
        judged = gate(site, tmp_path, "pipeline.cli", "accept", "--endpoint", url, "--target", "tiny-mistral")
    assert judged.returncode == 10, judged.stdout + judged.stderr
    found = results(tmp_path / "acceptance-results", url.removeprefix("http://"))
    assert len(found) == 8
    # Its errors are those of a real server, its answers are not.
    assert found["deployment.error_handling"]["outcome"] == "PASS"
    assert found["style.token_separation"]["outcome"] == "FAIL"
    assert "snapshots: not compared" in judged.stdout


def test_a_folder_that_is_no_run_is_one_line(site: Path, tmp_path: Path) -> None:
    refused = gate(site, tmp_path, "pipeline.cli", "accept", "--run", str(tmp_path))
    assert refused.returncode == 1
    assert "verbosity accept: " in refused.stderr
    assert "no run here" in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_is_judged(site: Path, tiny_run: RunFolder, tmp_path: Path) -> None:
    judged = gate(site, tmp_path, "pipeline.cli", "accept", "--run", str(tiny_run.path), "--output", "judged")
    # Random weights are never accepted; a machine with other work may be too slow for the times.
    assert judged.returncode in (10, 11), judged.stdout + judged.stderr
    found = results(tmp_path / "judged", "tiny-mistral")
    assert len(found) == 17
    assert found["training.adapter_saves"]["outcome"] == found["deployment.health_endpoint"]["outcome"] == "PASS"
    verdict = ("pipeline.cli", "verify", "judged/verdict.json", "--adapter", str(tiny_run.path))
    decision = "INCOMPLETE" if judged.returncode == 11 else "REJECTED"
    assert gate(site, tmp_path, *verdict).stdout == f"decision: {decision}, not ACCEPTED\n"


@pytest.mark.slow
def test_recorded_outputs_that_are_not_there_are_no_match(site: Path, tiny_run: RunFolder, tmp_path: Path) -> None:
    options = ("--target", "tiny-mistral", "--run-dir", str(tiny_run.path), "-p", "no:cacheprovider")
    compared = gate(site, tmp_path, "pytest", "--pyargs", "acceptance", "-m", "embedded and snapshot", *options)
    assert "2 NO_GOLDEN" in compared.stdout, compared.stdout + compared.stderr
    assert "2 skipped" in compared.stdout
