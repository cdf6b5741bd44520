"""The processes that train one run together: one, or as many as torchrun or accelerate started."""

from __future__ import annotations

import os

import torch
from torch import distributed

from pipeline.config import TrainingConfig
from pipeline.errors import PipelineError


def process_count() -> int:
    """How many processes train together (``WORLD_SIZE``, as launchers set it)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process is the one that writes the run."""
    return os.environ.get("RANK", "0") == "0"


def local_gpu() -> int:
    """Index of this process's GPU on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def accumulation_per_process(training: TrainingConfig, examples: int) -> int:
    """Micro-batches that each process takes behind one optimizer step, so that the step sees the same examples.

    Args:
        training: The configuration as it runs in one process.
        examples: Examples of the whole run, every pass counted.

    Raises:
        PipelineError: The window, or the examples, cannot be shared out evenly.
    """
    count = process_count()
    if training.accumulation_steps % count:
        raise PipelineError(
            f"{count} processes cannot share accumulation_steps={training.accumulation_steps} evenly; start a number "
            "that divides it."
        )
    at_once = training.micro_batch_size * count
    if examples % at_once:
        raise PipelineError(
            f"{count} processes take {at_once} examples at a time, and {examples} is no multiple of that; use "
            f"--max-examples {examples // training.epochs // at_once * at_once}."
        )
    return training.accumulation_steps // count


def mean_over_processes(value: float) -> float:
    """The mean of each process's value; every process must call it."""
    return _reduced(value) / process_count() if _together() else value


def sum_over_processes(value: float) -> float:
    """The sum of each process's value; every process must call it."""
    return _reduced(value) if _together() else value


def wait_for_processes() -> None:
    """Go on once every process has come here."""
    if _together():
        distributed.barrier()


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized() and process_count() > 1


def _reduced(value: float) -> float:
    device = f"cuda:{local_gpu()}" if distributed.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(tensor)
    return tensor.item()
