"""``verbosity`` in several processes on CPUs, each saying what it saves, stopped at a step where a test wants that.

Under ``accelerate launch --config_file docs/fsdp.yaml`` the model is sharded, which accelerate does on GPUs only and
torch itself on either; each process then prints how many bytes of the layers it keeps. Gradients are checkpointed, as
they are on Mistral. With a step's number in the environment variable that ``STOP`` names, the first process is sent
SIGTERM at that step.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor

from pipeline import cli, compat, distributed
from pipeline.config import Preset
from pipeline.distributed import is_first_process, is_sharded
from pipeline.model import adapter
from pipeline.training import train, trainer
from pipeline.training.callbacks import StepMetrics
from pipeline.training.trainer import StepRecordingTrainer

STOP = "VERBOSITY_TEST_STOP_AT_STEP"


def replace(owner: Any, replacement: Callable[..., Any]) -> None:
    setattr(owner, replacement.__name__, replacement)


def say_what_is_saved() -> None:
    """Print each adapter's folder as a process writes it."""

    def save_adapter(adapted: Any, folder: Path) -> None:
        if is_sharded():
            tensors = [part for name, part in adapted.named_parameters() if ".layers." in name]
            kept_bytes = sum((part.to_local() if isinstance(part, DTensor) else part).nbytes for part in tensors)
            print(f"kept {kept_bytes} of {sum(part.nbytes for part in tensors)} bytes", flush=True)
        print(f"saved {folder.name}", flush=True)
        adapter.save_adapter(adapted, folder)

    replace(train, save_adapter)
    replace(trainer, save_adapter)


def stop_when_told() -> None:
    """Stop at the step that ``STOP`` names."""
    step_ended = StepMetrics.on_step_end

    def on_step_end(metrics: StepMetrics, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step_ended(metrics, args, state, control, **kwargs)
        if is_first_process() and str(state.global_step) == os.environ.get(STOP):
            os.kill(os.getpid(), signal.SIGTERM)

    replace(StepMetrics, on_step_end)


def shard_on_cpus() -> None:
    """Let accelerate take these CPUs for GPUs, by doing what it does for those."""
    on_gpus = StepRecordingTrainer.create_accelerator_and_postprocess

    def create_accelerator_and_postprocess(trainer: StepRecordingTrainer) -> None:
        on_gpus(trainer)
        state = trainer.accelerator.state
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        if state.mixed_precision != "no":
            state.fsdp_plugin.set_mixed_precision(state.mixed_precision)
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        trainer.is_fsdp_enabled = True

    def require_shardable(preset: Preset, device: str) -> None:
        distributed.require_shardable(preset, "cuda")

    def checkpointing_arguments(enabled: bool) -> dict[str, Any]:
        return compat.checkpointing_arguments(True)

    replace(StepRecordingTrainer, create_accelerator_and_postprocess)
    replace(train, checkpointing_arguments)
    replace(train, require_shardable)


if __name__ == "__main__":
    say_what_is_saved()
    stop_when_told()
    if is_sharded():
        shard_on_cpus()
    sys.exit(cli.main())
