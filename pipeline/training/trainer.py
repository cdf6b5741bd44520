"""The stock trainer and what happens at each of its steps: figures, whole checkpoints, a stop when asked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import DataLoader
from transformers import Trainer

from pipeline.distributed import (
    is_sharded,
    wait_for_processes,
)
from pipeline.model.adapter import save_adapter
from pipeline.training.packed_step import PackedStep


class StepRecordingTrainer(Trainer):
    """The stock trainer, in the batches it is given, keeping every step's exact loss and saving small adapters."""

    def __init__(self, batches: Sequence[list[int]], packed_step: PackedStep | None = None, **kwargs: Any) -> None:
        """See ``Trainer``.

        Args:
            batches: Indices of each micro-batch's examples.
            packed_step: Runs micro-batches that are packed rows; None where they are padded.
            **kwargs: The stock trainer's.
        """
        super().__init__(**kwargs)
        self._batches, self._packed_step = batches, packed_step
        self.step_loss, self.step_tokens = self._nothing(), 0
        if is_sharded():
            # As autocast in one process; accelerate's choice would also round the loss, the number of tokens that it is
            # divided by, and the gradients' sums.
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16 if self.args.bf16 else None,
                reduce_dtype=torch.float32,
                cast_forward_inputs=False,
            )
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # none writes into it

    def get_train_dataloader(self) -> Any:
        """The micro-batches in their order; each process takes its share of them in turn."""
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-batch; its loss is already divided by the whole window's labelled tokens."""
        if self._packed_step is None:
            self.step_tokens += int(inputs["attention_mask"].sum())
            loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        else:
            self.step_tokens += inputs.pop("tokens")
            loss = self._packed_step(self._prepare_inputs(inputs), *args, **kwargs)
        self.step_loss += loss.detach()
        return loss

    def _nothing(self) -> torch.Tensor:
        return torch.zeros((), dtype=torch.float64, device=self.args.device)

    def take_figures(self) -> tuple[float, int]:
        """The summed loss and the tokens of the micro-batches since the last call; waits for the device."""
        figures = float(self.step_loss), self.step_tokens
        self.step_loss, self.step_tokens = self._nothing(), 0
        return figures

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter, but not beside the sharded state that checkpoints of a sharded model hold anyway.

        For it the stock trainer would gather the whole base in every process.
        """
        if not is_sharded():
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:  # transformers 5 asks every process
            save_adapter(self.model, Path(output_dir or self.args.output_dir))

    def _save_rng_state(self, output_dir: str) -> None:
        wait_for_processes()  # until the first one has put the checkpoint's folder in its place
        super()._save_rng_state(output_dir)
