"""Training that is killed at random calls, and resumed, ends with the adapter of a run that was never killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.run_folder import RunFolder

KILLS = 20


@pytest.mark.slow
def test_twenty_kills_change_nothing(tiny_run: RunFolder, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.smoke.killed_training", str(tmp_path), str(KILLS)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert f"{KILLS} kills" in finished.stdout
    runs = [RunFolder(path) for path in sorted(tmp_path.glob("run-*"))]
    assert runs
    straight = load_file(tiny_run.adapter / "adapter_model.safetensors")
    for run in runs:
        assert run.read_record()["status"] == "completed"
        assert {path.name for path in run.path.iterdir() if path.name.startswith(".")} <= {".lock"}
        rows, expected = run.read_metrics(), tiny_run.read_metrics()
        assert [row["step"] for row in rows] == [row["step"] for row in expected]
        assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], rel=1e-6)
        torch.testing.assert_close(load_file(run.adapter / "adapter_model.safetensors"), straight, rtol=1e-5, atol=1e-7)
