from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.environment import GOLDEN_VARIABLES
from pipeline.errors import PipelineError
from pipeline.model.adapter import attach_adapter
from pipeline.run_folder import RunFolder
from pipeline.training import train as train_module
from pipeline.training.callbacks import StepMetrics, TrainingDivergedError, termination_asked
from pipeline.training.train import TrainingStoppedError, train
from tests.support import tiny_request


class Killed(BaseException):
    """Ends a run as a signal would: nothing in the pipeline catches it."""


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    original = StepMetrics.on_step_end

    def on_step_end(self: StepMetrics, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        original(self, args, state, control, **kwargs)
        if state.global_step == step:
            act()

    monkeypatch.setattr(StepMetrics, "on_step_end", on_step_end)


def die() -> None:
    raise Killed


def losses(run: RunFolder) -> list[float]:
    return [row["loss"] for row in run.read_metrics()]


def test_a_run_records_what_made_it(tiny_run: RunFolder) -> None:
    record = tiny_run.read_record()
    assert record["status"] == "completed"
    assert record["completed_steps"] == record["planned_steps"] == 4
    assert record["data"]["examples"] == 16
    assert len(record["data"]["sha256"]) == len(record["base_model_sha256"]) == 64
    assert record["versions"]["torch"]
    assert record["seed"] == 42
    assert record["environment"].items() >= {name: os.environ[name] for name in GOLDEN_VARIABLES}.items()
    assert record["preset"]["adapter"]["rank"] == 16
    assert 0 < record["rss_before_load_gib"] < record["peak_memory"]["rss_gib"]
    assert not tiny_run.checkpoints.exists()


def test_every_step_has_its_loss_and_gradient_norm(tiny_run: RunFolder) -> None:
    rows = tiny_run.read_metrics()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert row["loss"] == pytest.approx(math.log(32770), rel=0.05)  # random weights know nothing yet
        assert row["grad_norm"] > 0
    assert sum(row["tokens"] for row in rows) == tiny_run.read_record()["tokens"]


def test_a_run_is_drawn(tiny_run: RunFolder) -> None:
    drawn = tiny_run.training_figure.read_text(encoding="utf-8")
    for label in ("loss", "learning rate", "gradient norm", "tokens/s", "peak memory", "optimizer step"):
        assert label in drawn


def test_every_lora_b_moved(tiny_run: RunFolder) -> None:
    tensors = load_file(tiny_run.adapter / "adapter_model.safetensors")
    lora_b = [tensor for name, tensor in tensors.items() if "lora_B" in name]
    assert len(lora_b) == 14
    assert all(tensor.any() for tensor in lora_b)


@pytest.mark.slow
@pytest.mark.versions
def test_golden_trains_under_checkpointing(tmp_path: Path) -> None:
    train(tiny_request(tmp_path, "golden", max_examples=32))
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
    whole = [name for name, tensor in tensors.items() if tensor.shape[0] == 32770]
    assert sorted(whole) == ["base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"]


def test_a_finished_run_is_not_trained_again(tiny_run: RunFolder) -> None:
    before = tiny_run.record_file.read_bytes()
    train(tiny_request(tiny_run.path, accumulation_steps=1))
    assert tiny_run.record_file.read_bytes() == before


def test_a_folder_of_another_run_is_refused(tiny_run: RunFolder) -> None:
    with pytest.raises(PipelineError, match=r"\(preset\.training\.seed 1, was 42\); choose another --output"):
        train(tiny_request(tiny_run.path, accumulation_steps=1, seed=1))


@pytest.mark.slow
@pytest.mark.versions
def test_a_killed_run_resumes_to_the_same_adapter(
    tiny_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = tiny_request(tmp_path / "run", accumulation_steps=1)
    run = RunFolder(request.output)
    with monkeypatch.context() as patch:
        at_step(patch, 3, die)
        with pytest.raises(Killed):
            train(request)
    assert run.read_record()["status"] == "failed"
    assert not run.adapter.exists()
    assert train(request)["resumed_from"] == "checkpoint-2"
    assert losses(run) == pytest.approx(losses(tiny_run), rel=1e-6)
    elapsed_s = [row["elapsed_s"] for row in run.read_metrics()]
    assert elapsed_s == sorted(elapsed_s)
    assert run.read_record()["duration_s"] >= elapsed_s[-1]
    straight, resumed = (load_file(r.adapter / "adapter_model.safetensors") for r in (tiny_run, run))
    for name, tensor in straight.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-5, atol=1e-7)


def test_a_damaged_or_half_written_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (2, 10, 12, 14):
        folder = run.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "optimizer.pt").write_bytes(b"state")
        if step < 14:
            run.mark_complete(folder)
    (run.checkpoints / "checkpoint-12" / "optimizer.pt").write_bytes(b"sta")
    last = run.last_checkpoint()
    assert last is not None
    assert last.name == "checkpoint-10"
    assert run.progress() == "it resumes from checkpoint-10."
    (run.checkpoints / "checkpoint-10" / "optimizer.pt").unlink()
    (run.checkpoints / "checkpoint-2" / "complete.json").write_text("{")
    assert run.last_checkpoint() is None
    assert run.progress() == "it starts over, no checkpoint is complete."


def test_a_run_that_is_asked_to_terminate_saves_and_goes_on_later(
    tiny_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = tiny_request(tmp_path / "run", accumulation_steps=1)
    run = RunFolder(request.output)
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(TrainingStoppedError, match="run the command again: it resumes from checkpoint-3") as stop:
            train(request)
    assert stop.value.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    assert run.read_record()["status"] == "stopped"
    assert len(losses(run)) == 3
    assert train(request)["resumed_from"] == "checkpoint-3"
    assert losses(run) == pytest.approx(losses(tiny_run), rel=1e-6)


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.locked(), pytest.raises(PipelineError, match="another process is training here; wait for it or choose"):
        train(tiny_request(run.path))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        PipelineError, match=r"file/run: cannot be written \(Not a directory\); choose another --output"
    ):
        train(tiny_request(tmp_path / "file" / "run"))


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room"),
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), "out of memory"),
    ],
)
def test_what_the_machine_lacks_is_said_with_what_was_saved(
    error: Exception, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    request = tiny_request(tmp_path / "run", accumulation_steps=1)
    at_step(monkeypatch, 3, fail)
    with pytest.raises(PipelineError, match=f"{remedy}.* run the command again: it resumes from checkpoint-2") as told:
        train(request)
    assert told.value.__cause__ is error
    assert RunFolder(request.output).read_record()["status"] == "failed"


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        model = attach_adapter(*arguments)
        next(p for p in model.parameters() if p.requires_grad).data.fill_(float("nan"))
        return model

    monkeypatch.setattr(train_module, "attach_adapter", broken)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(TrainingDivergedError, match="step 1: loss nan"):
        train(tiny_request(run.path, accumulation_steps=1))
    assert run.read_record()["status"] == "failed"
    assert "loss nan" in run.read_record()["reason"]
    assert math.isnan(losses(run)[0])
    assert not run.adapter.exists()


@pytest.mark.slow
def test_how_a_window_is_cut_does_not_change_its_step(tmp_path: Path) -> None:
    steps = []
    for micro_batch_size, stratify_windows in ((1, False), (4, True), (16, False)):
        request = tiny_request(
            tmp_path / str(micro_batch_size),
            micro_batch_size=micro_batch_size,
            accumulation_steps=16 // micro_batch_size,
            stratify_windows=stratify_windows,
        )
        adapter = dataclasses.replace(request.preset.adapter, dropout=0.0)
        train(dataclasses.replace(request, preset=dataclasses.replace(request.preset, adapter=adapter)))
        steps.append(RunFolder(request.output).read_metrics()[0])
    for name in ("loss", "grad_norm"):
        assert [step[name] for step in steps[1:]] == pytest.approx([steps[0][name]] * 2, rel=1e-3)


@pytest.mark.slow
def test_how_a_smaller_last_window_is_cut_does_not_change_its_step(tmp_path: Path) -> None:
    steps = []
    for micro_batch_size in (1, 8, 16):
        request = tiny_request(
            tmp_path / str(micro_batch_size),
            max_examples=19,
            micro_batch_size=micro_batch_size,
            accumulation_steps=16 // micro_batch_size,
            warmup_ratio=0.0,
        )
        train(request)
        steps.append(RunFolder(request.output).read_metrics())
    assert [len(rows) for rows in steps] == [2, 2, 2]
    for name in ("loss", "grad_norm", "tokens"):
        for other in steps[1:]:
            assert [row[name] for row in other] == pytest.approx([row[name] for row in steps[0]], rel=1e-3)


@pytest.mark.parametrize(
    ("preset", "examples"),
    [
        ("lean", 2),
        *(pytest.param(*more, marks=pytest.mark.slow) for more in (("golden", 2), ("lean", 17), ("golden", 21))),
    ],
)
def test_any_number_of_examples_trains(preset: str, examples: int, tmp_path: Path) -> None:
    record = train(tiny_request(tmp_path, preset, max_examples=examples))
    assert (record["status"], record["data"]["examples"]) == ("completed", examples)
    assert record["completed_steps"] == record["planned_steps"] == -(-examples // 16)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)


def test_data_of_one_style_alone_is_refused_before_the_base_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "load_base", None)
    with pytest.raises(PipelineError, match=r"max_examples=1 leaves no verbose example; raise it or mix"):
        train(tiny_request(tmp_path, max_examples=1))


def test_what_processes_cannot_share_is_refused_before_the_base_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "load_base", None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PipelineError, match=r"2 processes cannot share .* use --max-examples 16\."):
        train(tiny_request(tmp_path, max_examples=17))


def test_metrics_are_one_json_object_a_line(tiny_run: RunFolder) -> None:
    lines = tiny_run.metrics_file.read_text().splitlines()
    assert all({"step", "loss", "grad_norm", "learning_rate", "elapsed_s"} <= json.loads(line).keys() for line in lines)


def test_tensorboard_shows_the_losses_of_the_metrics(tiny_run: RunFolder, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    request = dataclasses.replace(tiny_request(tmp_path, accumulation_steps=1), tensorboard=True)
    train(request)
    events = EventAccumulator(str(RunFolder(tmp_path).tensorboard)).Reload()
    shown = events.Scalars("train/loss")
    assert [event.step for event in shown] == [1, 2, 3, 4]
    assert [event.value for event in shown] == pytest.approx(losses(tiny_run), rel=1e-3)
    assert not tiny_run.tensorboard.exists()


def test_a_missing_tensorboard_is_reported_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    request = dataclasses.replace(tiny_request(tmp_path / "run"), tensorboard=True)
    with pytest.raises(PipelineError, match=r"pip install 'verbosity\[tensorboard\]'"):
        train(request)
    assert not request.output.exists()


def test_a_run_that_ends_early_unasked_says_how_far_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = StepMetrics.on_step_end

    def on_step_end(self: StepMetrics, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        original(self, args, state, control, **kwargs)
        control.should_training_stop = state.global_step == 2

    monkeypatch.setattr(StepMetrics, "on_step_end", on_step_end)
    record = train(tiny_request(tmp_path / "run", accumulation_steps=1))
    assert (record["status"], record["completed_steps"], record["planned_steps"]) == ("completed", 2, 4)


def test_training_in_another_thread_leaves_the_signals_to_the_program() -> None:
    before, asked = signal.getsignal(signal.SIGTERM), []

    def train_here() -> None:
        with termination_asked() as event:
            asked.append((event.is_set(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=train_here)
    thread.start()
    thread.join()
    assert asked == [(False, before)]
