"""The processes of a training run: one, or as many as torchrun or accelerate started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import distributed
from torch.distributed.tensor import DTensor

from pipeline.compat import SHARDS_FOUR_BIT
from pipeline.config import Preset, TrainingConfig
from pipeline.errors import PipelineError

SHARDING: Mapping[str, str] = MappingProxyType(
    {
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_OFFLOAD_PARAMS": "false",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
        "FSDP_ACTIVATION_CHECKPOINTING": "false",
    }
)
"""The settings of docs/fsdp.yaml that training depends on, as accelerate passes them to each process."""


def process_count() -> int:
    """Number of processes in the run (``WORLD_SIZE``, set by launchers)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process writes the run."""
    return os.environ.get("RANK", "0") == "0"


def local_gpu() -> int:
    """Index of this process's GPU on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_sharded() -> bool:
    """Whether the model is sharded with FSDP (``ACCELERATE_USE_FSDP``, set by ``accelerate launch``)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def require_shardable(preset: Preset, device: str) -> None:
    """Refuse an FSDP run that would fail late or silently train with other settings.

    Raises:
        PipelineError: The run is such a one; the message names the alternative.
    """
    if not is_sharded():
        return
    if device == "cpu":
        raise PipelineError("accelerate shards a model over GPUs only; on CPUs start the processes with torchrun.")
    if not preset.adapter.trains_style_rows_only:
        raise PipelineError(
            f"preset {preset.name} trains whole embeddings and is not sharded; use --preset lean, or torchrun."
        )
    if not SHARDS_FOUR_BIT:
        raise PipelineError("sharding 4-bit weights needs accelerate 1.15; install what constraints/current.txt pins.")
    for name, value in SHARDING.items():
        if (found := os.environ.get(name)) != value:
            raise PipelineError(f"{name} is {found}, not {value}; use accelerate launch --config_file docs/fsdp.yaml.")


def require_same_sharding(checkpoint: Path) -> None:
    """Refuse to resume an unsharded run from a sharded checkpoint, or the reverse.

    Raises:
        PipelineError: The checkpoint was made the other way.
    """
    if is_sharded() != any(checkpoint.glob("pytorch_model_fsdp*")):
        made = "without" if is_sharded() else "with"
        raise PipelineError(f"{checkpoint}: made {made} FSDP; start as before, or choose another --output.")


def gathered_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The trained tensors of a sharded model by name, gathered on the CPU; every process must call it."""
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()
        for name, tensor in model.named_parameters()
        if tensor.requires_grad
    }


def accumulation_per_process(training: TrainingConfig, examples: int) -> int:
    """Micro-batches per process and optimizer step, such that a step covers the same examples as in one process.

    Args:
        training: The configuration for a single process.
        examples: Examples of the run, all epochs included.

    Raises:
        PipelineError: The window, or the smaller last one, has micro-batches that the processes cannot share evenly.
    """
    count = process_count()
    if training.accumulation_steps % count:
        raise PipelineError(
            f"{count} processes cannot share accumulation_steps={training.accumulation_steps} evenly; start a number "
            "that divides it."
        )
    if last := _unshared(training, examples, count):
        rows = range(examples // training.epochs, 0, -1)
        fitting = next((n for n in rows if not _unshared(training, n * training.epochs, count)), None)
        remedy = f"use --max-examples {fitting}" if fitting else "start fewer processes"
        left = "single example" if last == 1 else f"{last} examples"
        raise PipelineError(f"{count} processes cannot share the last step's {left}; {remedy}.")
    return training.accumulation_steps // count


def _unshared(training: TrainingConfig, examples: int, count: int) -> int:
    """Examples of the last optimizer step if the processes cannot have equally many micro-batches of it; else 0."""
    last = examples % training.window_examples
    return last if min(last, training.accumulation_steps) % count else 0  # as ``training_batches`` cuts it


def mean_over_processes(value: float) -> float:
    """The mean of a value over the processes; every process must call it."""
    return _reduced(value) / process_count() if _together() else value


def sum_over_processes(value: float) -> float:
    """The sum of a value over the processes; every process must call it."""
    return _reduced(value) if _together() else value


def wait_for_processes() -> None:
    """Wait until every process has called this."""
    if _together():
        distributed.barrier()


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized() and process_count() > 1


def _reduced(value: float) -> float:
    device = f"cuda:{local_gpu()}" if distributed.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(tensor)
    return tensor.item()
