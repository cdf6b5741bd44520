"""Two processes train together as one does, on the ordinary command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.config import TrainingConfig
from pipeline.errors import PipelineError
from pipeline.processes import accumulation_per_process
from pipeline.runs import RunFolder
from tests.support import VERBOSITY

TRAIN = ("train", "--target", "tiny-mistral", "--max-examples", "32")
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def trained(command: list[str], output: Path) -> RunFolder:
    finished = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert finished.stdout.count("trained 2 steps") == 1
    return RunFolder(output)


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    one = trained([*VERBOSITY, *TRAIN], tmp_path / "one")
    two = trained([*LAUNCHER, *VERBOSITY[1:], *TRAIN], tmp_path / "two")
    for alone, together in zip(one.read_metrics(), two.read_metrics(), strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert together["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-2)
        assert together["tokens"] == alone["tokens"]
    before, after = (load_file(run.adapter / "adapter_model.safetensors") for run in (one, two))
    moved = {name: tensor for name, tensor in before.items() if "lora_B" in name}
    assert moved
    for name, tensor in moved.items():
        assert tensor.any()
        torch.testing.assert_close(after[name], tensor, rtol=0.05, atol=2e-5)
    record = two.read_record()
    assert (record["status"], record["completed_steps"]) == ("completed", 2)


@pytest.mark.parametrize(
    ("count", "examples", "message"),
    [
        (3, 48, r"3 processes cannot share accumulation_steps=4 evenly"),
        (2, 20, r"2 processes take 8 examples at a time, and 20 is no multiple of that; use --max-examples 16\."),
    ],
)
def test_what_processes_cannot_share_evenly_is_refused(
    count: int, examples: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    with pytest.raises(PipelineError, match=message):
        accumulation_per_process(TrainingConfig(micro_batch_size=4, accumulation_steps=4), examples)
