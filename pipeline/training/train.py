"""Training one adapter with transformers' ``Trainer``: recorded step by step, resumable, saved whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback

from pipeline.compat import load_to_numbered_cpus
from pipeline.config import GIB, Preset, Target
from pipeline.data.batches import packed_batches, training_batches
from pipeline.data.store import tokenised
from pipeline.distributed import (
    accumulation_per_process,
    is_first_process,
    is_sharded,
    require_same_sharding,
    require_shardable,
    sum_over_processes,
)
from pipeline.environment import environment_values
from pipeline.errors import PipelineError
from pipeline.files import weights_digest, write_text
from pipeline.memory import peak_memory, resident_bytes
from pipeline.model.adapter import attach_adapter, save_adapter
from pipeline.model.base_models import open_base_model
from pipeline.model.heads import has_plain_head
from pipeline.model.identity import RECORDED, adapter_settings, base_settings
from pipeline.model.loading import hardware_preset, load_base
from pipeline.model.quantization_report import quantization_census
from pipeline.model.shapes import MistralShape
from pipeline.model.style_embeddings import add_style_rows
from pipeline.planning.devices import this_device
from pipeline.planning.memory_estimate import Needs
from pipeline.planning.packed_rows import PackedRows, plan_rows
from pipeline.planning.plan import warn_of_memory, with_vocabulary
from pipeline.run_folder import RunFolder, checkpoint_step, package_versions
from pipeline.targets import describe_target
from pipeline.training.callbacks import (
    StepMetrics,
    StopWhenAsked,
    require_tensorboard,
    tensorboard_callback,
    termination_asked,
)
from pipeline.training.collation import packed_tensors, padded_tensors
from pipeline.training.frozen_head_loss import share_inputs, use_answer_loss
from pipeline.training.packed_model import PackedModel
from pipeline.training.packed_step import PackedStep
from pipeline.training.plot import draw_training
from pipeline.training.trainer import StepRecordingTrainer
from pipeline.training.trainer_arguments import trainer_arguments


class TrainingStoppedError(PipelineError):
    """Training was asked to stop, and did so with a checkpoint."""

    exit_status = 128 + signal.SIGTERM


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingRequest:
    """Everything that decides a run, and who is told of its steps."""

    target: Target
    preset: Preset
    data: Path
    output: Path
    device: str
    base_model: str | None = None
    tensorboard: bool = False


def train(request: TrainingRequest) -> dict[str, Any]:
    """Train an adapter, or finish the run that ``request.output`` already holds.

    Under torchrun or accelerate every process calls it, and the first one writes the run.

    Returns:
        The run's record, as in ``run.json``.

    Raises:
        PipelineError: Bad data, missing weights, another run in the folder, a loss that is not finite, a disk or memory
            that is full; or SIGTERM came, and what was trained so far is saved.
    """
    if request.tensorboard:
        require_tensorboard()
    require_shardable(request.preset, request.device)
    if checkpoint := RunFolder(request.output).last_checkpoint():
        require_same_sharding(checkpoint)
    job = _prepare(request, checkpoint)
    run, training = job.run, job.preset.training
    if not is_first_process():
        return _follow(job)
    with run.locked():
        earlier = run.open(job.identity)
        if earlier is not None and earlier["status"] == "completed":
            return earlier
        if not is_sharded():  # the plan is one of a whole model
            warn_of_memory(request.target, job.preset, job.base_folder, len(job.tokenizer), job.data, request.device)
        settings = {"versions": package_versions(), "environment": environment_values(), "seed": training.seed}
        before = {"rss_before_load_gib": resident_bytes() / GIB}  # differs by half a GiB between builds of torch
        if request.target.folder is not None:
            settings["base_model"] = str(job.base_folder.resolve())
        run.update(**job.identity, **settings, **before, status="running")
        try:
            run.update(**_train(job), status="completed", reason=None)
        except BaseException as error:
            stopped = isinstance(error, TrainingStoppedError)
            with contextlib.suppress(OSError):  # a full disk cannot take the reason either
                run.update(status="stopped" if stopped else "failed", reason=f"{type(error).__name__}: {error}")
            if remedy := _remedy(error):
                raise PipelineError(f"{run.path}: {remedy}, and run the command again: {run.progress()}") from error
            raise
        run.discard_checkpoints()
        return run.read_record()


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    """A request with everything that it names at hand.

    Attributes:
        request: What was asked for.
        preset: The preset in the arithmetic of the hardware.
        base_folder: The base model.
        tokenizer: Its tokenizer, style tokens added.
        data: The encoded examples.
        identity: What must be equal for an earlier run to go on.
        base_settings: What of the base decides the answers, as it was before training.
        run: Where this process writes.
        checkpoints: Where all processes keep their checkpoints.
        checkpoint: The one to go on from; None at the beginning.
    """

    request: TrainingRequest
    preset: Preset
    base_folder: Path
    tokenizer: Any
    data: Any
    identity: dict[str, Any]
    base_settings: dict[str, Any]
    run: RunFolder
    checkpoints: RunFolder
    checkpoint: Path | None


def _prepare(request: TrainingRequest, checkpoint: Path | None) -> _Job:
    base = open_base_model(request.target, request.base_model)
    preset = hardware_preset(base.fit(request.preset), request.device)
    data, data_identity = tokenised(request.data, base.tokenizer, base.folder, preset.training)
    accumulation_per_process(preset.training, len(data) * preset.training.epochs)  # refuses before anything is loaded
    identity = {
        "target": request.target.name,
        **describe_target(request.target),
        "device": request.device,
        "preset": preset.describe(),
        "data": data_identity,
        "base_model_sha256": weights_digest(base.folder),
    }
    run = RunFolder(request.output)
    return _Job(request, preset, base.folder, base.tokenizer, data, identity, base_settings(base), run, run, checkpoint)


def _follow(job: _Job) -> dict[str, Any]:
    """Train along with the first process; what this one would write is thrown away, but for its part of checkpoints."""
    if job.run.record_file.exists() and (earlier := job.run.read_record())["status"] == "completed":
        return earlier
    with tempfile.TemporaryDirectory() as scratch:
        return _train(dataclasses.replace(job, run=RunFolder(Path(scratch))))


def _train(job: _Job) -> dict[str, Any]:
    """Load, train and save; returns the run's figures."""
    run, training = job.run, job.preset.training
    plan = _plan_rows(job) if training.padding_free else None
    model = load_base(job.base_folder, job.preset.quantization, job.request.device)
    run.update(quantization=dataclasses.asdict(quantization_census(model)))
    add_style_rows(model, job.tokenizer, job.request.target.style_words)
    torch.manual_seed(training.seed)
    adapted = attach_adapter(model, job.tokenizer, job.preset)
    frozen = job.preset.adapter.trains_style_rows_only and has_plain_head(adapted)
    head = use_answer_loss(adapted) if frozen else None  # otherwise the model's own loss
    if not training.upcast_embeddings:
        share_inputs(adapted)
    figures = _optimize(adapted, job, None if plan is None or head is None else _Packing(plan, head))
    save_adapter(adapted, run.adapter)
    write_text(run.training_figure, draw_training(run.read_metrics()))
    size_bytes = sum(file.stat().st_size for file in run.adapter.glob("*.safetensors"))
    adapter = {"sha256": weights_digest(run.adapter), "size_bytes": size_bytes}
    return {**figures, "adapter": adapter, RECORDED: {**job.base_settings, **adapter_settings(run.adapter)}}


def _remedy(error: BaseException) -> str | None:
    """What a user can do about an error of the machine; None for every other."""
    if isinstance(error, OSError):
        return f"{error.strerror or error}; make room or choose another --output"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in str(error):
        return f"out of memory ({error}); close what else uses it or train with --preset lean"
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class _Packing:
    """How windows become rows, and the frozen head that the loss multiplies with."""

    plan: PackedRows
    head: torch.Tensor


def _plan_rows(job: _Job) -> PackedRows:
    """Rows and checkpointing that keep to the memory that is free now, before anything is loaded."""
    shape = with_vocabulary(MistralShape.of_folder(job.base_folder), len(job.tokenizer))
    device = this_device(job.request.device)
    return plan_rows(Needs(shape, job.preset, device.kind), job.data, device.available_bytes)


def _batches(job: _Job, packing: _Packing | None) -> list[list[int]]:
    columns = list(job.data["style"]), list(job.data["length"]), job.preset.training
    return training_batches(*columns) if packing is None else packed_batches(*columns, packing.plan.rows_per_window)


def _trainer(model: Any, job: _Job, packing: _Packing | None) -> tuple[StepRecordingTrainer, list[int]]:
    """The trainer, and the examples in the order in which it takes them."""
    training, pad_id, batches = job.preset.training, job.tokenizer.pad_token_id, _batches(job, packing)
    order = [index for batch in batches for index in batch]
    arguments = trainer_arguments(training, job.request.device, job.checkpoints.checkpoints, len(order))
    step, collator = None, partial(padded_tensors, pad_id=pad_id, multiple=training.pad_to_multiple)
    if packing is not None:
        arguments.gradient_accumulation_steps = packing.plan.rows_per_window
        arguments.gradient_checkpointing = False  # the packed model's own, of as many layers as it has to be
        arguments.optim = "adamw_torch_fused"
        lengths = list(job.data["length"])
        packed = PackedModel(model, packing.head, max(lengths), packing.plan.checkpointed_layers)
        step = PackedStep(packed, packing.plan.row_lengths)
        places = max(len(batch) for batch in batches)
        collator = partial(packed_tensors, pad_id=pad_id, row_lengths=packing.plan.row_lengths, places=places)
    trainer = StepRecordingTrainer(
        batches, step, model=model, args=arguments, train_dataset=job.data, data_collator=collator
    )
    return trainer, order


def _optimize(model: Any, job: _Job, packing: _Packing | None) -> dict[str, Any]:
    """Run the trainer over the micro-batches in their order and return the run's figures."""
    run, device, lengths = job.run, job.request.device, list(job.data["length"])
    trainer, order = _trainer(model, job, packing)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    checkpoint = job.checkpoint
    if checkpoint:
        load_to_numbered_cpus()
    step = checkpoint_step(checkpoint) if checkpoint else 0
    earlier_s = run.keep_metrics_until(step)
    trainer.add_callback(StepMetrics(run, trainer, device, earlier_s))
    if job.request.tensorboard and is_first_process():
        trainer.add_callback(tensorboard_callback(run, step))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    with termination_asked() as asked:
        trainer.add_callback(StopWhenAsked(asked))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if sum_over_processes(float(asked.is_set())) and trainer.state.global_step < trainer.state.max_steps:
        raise TrainingStoppedError(f"{run.path}: stopped as asked; run the command again: {run.progress()}")
    duration_s = earlier_s + time.perf_counter() - started
    return {
        "planned_steps": trainer.state.max_steps,
        "completed_steps": trainer.state.global_step,
        "resumed_from": checkpoint.name if checkpoint else None,
        "duration_s": duration_s,
        "examples_per_s": len(order) / duration_s,
        "tokens": sum(lengths[index] for index in order),
        "peak_memory": peak_memory(device),
    }
