"""Two processes train together as one does, on the ordinary command line: whole models, and a sharded one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from acceptance.processes import VERBOSITY
from pipeline import distributed as processes
from pipeline.cli import main
from pipeline.compat import SHARDS_FOUR_BIT
from pipeline.config import PRESETS, TrainingConfig
from pipeline.data.batches import training_batches
from pipeline.distributed import SHARDING, accumulation_per_process, require_same_sharding, require_shardable
from pipeline.errors import PipelineError
from pipeline.model.loading import load_trained
from pipeline.run_folder import RunFolder
from pipeline.training.train import train
from tests.smoke.launched import STOP
from tests.support import tiny_request, torch_threads

TRAIN = ("train", "--target", "tiny-mistral", "--max-examples", "32")
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch", "--config_file", "docs/fsdp.yaml")
TOGETHER = ("-m", "tests.smoke.launched")


def trained(command: list[str], output: Path) -> str:
    finished = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("trained 2 steps") == 1
    return finished.stdout


def stopped_at_step_1(command: list[str], run: RunFolder) -> str:
    to_stop = [*command, "--output", str(run.path)]
    stopped = subprocess.run(to_stop, env={**os.environ, STOP: "1"}, capture_output=True, text=True, check=False)
    assert run.read_record()["status"] == "stopped", stopped.stderr
    return stopped.stdout


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run of one process, in one thread as torchrun gives each of several: other sums round otherwise."""
    output = tmp_path_factory.mktemp("alone") / "one"
    with torch_threads(1):
        train(tiny_request(output, max_examples=32))
    return RunFolder(output)


def assert_same_steps(one: RunFolder, two: RunFolder) -> None:
    for alone, together in zip(one.read_metrics(), two.read_metrics(), strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert together["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-2)
        assert together["tokens"] == alone["tokens"]
    record = two.read_record()
    assert (record["status"], record["completed_steps"]) == ("completed", 2)


def assert_trained_alike(one: RunFolder, two: RunFolder) -> None:
    assert_same_steps(one, two)
    before, after = (load_file(run.adapter / "adapter_model.safetensors") for run in (one, two))
    moved = {name: tensor for name, tensor in before.items() if "lora_B" in name}
    assert moved
    for name, tensor in moved.items():
        assert tensor.any()
        # One process trains rows without padding, two pad. In float32 both give the same gradients (test_packed); in
        # bfloat16 they round differently, and Adam divides that by the size of small gradients.
        assert (after[name] - tensor).norm() < 0.1 * tensor.norm(), name


@pytest.mark.slow
@pytest.mark.versions
def test_two_processes_stopped_and_resumed_write_each_checkpoint_once_and_train_what_one_trains(
    one: RunFolder, tmp_path: Path
) -> None:
    two = RunFolder(tmp_path / "two")
    command = [*LAUNCHER, *TOGETHER, *TRAIN]
    assert stopped_at_step_1(command, two).count("saved checkpoint-1") == 1
    assert trained(command, two.path).count("saved checkpoint-2") == 1
    assert two.read_record()["resumed_from"] == "checkpoint-1"
    assert_trained_alike(one, two)


@pytest.mark.slow
@pytest.mark.versions
@pytest.mark.skipif(not SHARDS_FOUR_BIT, reason="this accelerate is refused, as another test shows")
def test_a_sharded_model_stopped_and_resumed_trains_what_one_process_trains(
    one: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = RunFolder(tmp_path / "two")
    command = [*ACCELERATE, *TOGETHER, *TRAIN]
    stopped_at_step_1(command, two)
    assert main([*TRAIN, "--output", str(two.path)]) == 1
    assert "checkpoint-1: made with FSDP; start as before" in capsys.readouterr().err
    printed = trained(command, two.path)
    assert two.read_record()["resumed_from"] == "checkpoint-1"
    assert_trained_alike(one, two)
    shares = [int(kept) / int(whole) for kept, whole in re.findall(r"kept (\d+) of (\d+) bytes", printed)]
    assert len(shares) == 2
    assert max(shares) < 0.55
    assert load_trained(two).adapter_sha256 == two.read_record()["adapter"]["sha256"]


@pytest.mark.parametrize(
    ("preset", "device", "variable", "value", "message"),
    [
        ("lean", "cpu", "FSDP_VERSION", "2", "over GPUs only; on CPUs start the processes with torchrun"),
        ("golden", "cuda", "FSDP_VERSION", "2", "preset golden .* is not sharded; use --preset lean"),
        ("lean", "cuda", "FSDP_VERSION", "1", r"FSDP_VERSION is 1, not 2; .* --config_file docs/fsdp\.yaml"),
    ],
)
def test_what_cannot_be_sharded_is_refused(
    preset: str, device: str, variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "SHARDS_FOUR_BIT", True)
    for name, setting in {**SHARDING, variable: value}.items():
        monkeypatch.setenv(name, setting)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "0")
    require_shardable(PRESETS[preset], device)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(PipelineError, match=message):
        require_shardable(PRESETS[preset], device)


def test_the_command_refuses_before_it_loads_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert main([*TRAIN, "--output", str(tmp_path / "run")]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert "accelerate shards a model over GPUs only" in captured.err
    assert not (tmp_path / "run").exists()


def test_an_accelerate_that_cannot_shard_4_bit_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    for name, setting in SHARDING.items():
        monkeypatch.setenv(name, setting)
    monkeypatch.setattr(processes, "SHARDS_FOUR_BIT", True)
    require_shardable(PRESETS["lean"], "cuda")
    monkeypatch.setattr(processes, "SHARDS_FOUR_BIT", False)
    with pytest.raises(PipelineError, match=r"needs accelerate 1\.15"):
        require_shardable(PRESETS["lean"], "cuda")


def test_a_checkpoint_is_resumed_the_way_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_same_sharding(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(PipelineError, match="made without FSDP; start as before"):
        require_same_sharding(tmp_path)
    (tmp_path / "pytorch_model_fsdp.bin").touch()
    require_same_sharding(tmp_path)
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    with pytest.raises(PipelineError, match="made with FSDP; start as before"):
        require_same_sharding(tmp_path)


@pytest.mark.parametrize(
    ("count", "examples", "message"),
    [
        (3, 48, r"3 processes cannot share accumulation_steps=4 evenly"),
        (2, 17, r"2 processes cannot share the last step's single example; use --max-examples 16\."),
        (4, 35, r"4 processes cannot share the last step's 3 examples; use --max-examples 32\."),
        (2, 1, r"2 processes cannot share the last step's single example; start fewer processes\."),
    ],
)
def test_what_processes_cannot_share_evenly_is_refused(
    count: int, examples: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    with pytest.raises(PipelineError, match=message):
        accumulation_per_process(TrainingConfig(micro_batch_size=4, accumulation_steps=4), examples)


@pytest.mark.parametrize(("count", "examples"), [(1, 2), (1, 41), (2, 41), (4, 20), (2, 18)])
def test_any_other_number_of_examples_is_shared(count: int, examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    training = TrainingConfig(micro_batch_size=4, accumulation_steps=4)
    assert accumulation_per_process(training, examples) == 4 // count
    assert len(training_batches(["terse"] * examples, [1] * examples, training)) % count == 0


@pytest.mark.slow
def test_two_processes_train_what_one_trains_in_a_smaller_last_window_too(tmp_path: Path) -> None:
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    with torch_threads(1):
        train(tiny_request(one.path, max_examples=22))
    trained([*LAUNCHER, *VERBOSITY[1:], *TRAIN[:-1], "22"], two.path)
    assert_trained_alike(one, two)
