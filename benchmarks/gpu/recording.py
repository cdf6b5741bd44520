"""The real trainer over a few given rows, its second optimizer step recorded by torch's allocator."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset

from pipeline.training.trainer import StepRecordingTrainer

MICRO_BATCHES = 4
"""Of two each behind two optimizer steps: in the second, moments and then gradients are there."""


@dataclass
class Recording:
    """What is trained on, and what was seen.

    Attributes:
        rows: Encoded examples of one micro-batch.
        history_events: Most events that are kept; 0 records nothing.
        before_bytes: What was allocated when the recording began.
        persistent: Component and bytes of each long-lived tensor, by address.
        trace: The allocator's events.
        vocabulary_size: Rows of the embeddings.
        hidden_size: Their columns.
    """

    rows: Sequence[Mapping[str, Any]]
    history_events: int
    before_bytes: int = 0
    persistent: dict[int, tuple[str, int]] = field(default_factory=dict)
    trace: Sequence[Mapping[str, Any]] = ()
    vocabulary_size: int = 0
    hidden_size: int = 0


def recording_trainer(recording: Recording) -> type[StepRecordingTrainer]:
    """The trainer's class with the recording built in."""

    class RecordingTrainer(StepRecordingTrainer):
        def __init__(self, batches: Sequence[list[int]], *args: Any, **kwargs: Any) -> None:
            kwargs["train_dataset"] = Dataset.from_list([dict(row) for row in recording.rows])
            super().__init__([list(range(len(recording.rows)))] * MICRO_BATCHES, *args, **kwargs)

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            second = self.state.global_step == 1
            if second and recording.history_events and not recording.before_bytes:
                self._begin(model)
            loss = super().training_step(model, inputs, *args, **kwargs)
            if second and recording.history_events:
                recording.persistent |= _addresses(
                    ("gradients", parameter.grad) for parameter in model.parameters() if parameter.grad is not None
                )
            return loss

        def _begin(self, model: Any) -> None:
            recording.vocabulary_size, recording.hidden_size = model.config.vocab_size, model.config.hidden_size
            recording.persistent |= _addresses(_weights(model))
            states = (state for state in self.optimizer.state.values())
            moments = (value for state in states for value in state.values() if isinstance(value, torch.Tensor))
            recording.persistent |= _addresses(("optimizer", moment) for moment in moments)
            torch.cuda.synchronize()
            recording.before_bytes = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.memory._record_memory_history(
                context="alloc", stacks="python", max_entries=recording.history_events
            )

        def train(self, *args: Any, **kwargs: Any) -> Any:
            finished = super().train(*args, **kwargs)
            if recording.history_events:
                torch.cuda.synchronize()
                recording.trace = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
                torch.cuda.memory._record_memory_history(enabled=None)
            return finished

    return RecordingTrainer


def _weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Component and tensor of everything that is loaded or trained."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            yield "adapter", parameter
        elif (state := getattr(parameter, "quant_state", None)) is not None:
            yield "4-bit weights", parameter
            yield "4-bit weights", state.absmax
            if state.nested:
                yield "4-bit weights", state.state2.absmax
        else:
            yield "other base weights", parameter
    for buffer in model.buffers():
        yield "other base weights", buffer
    held = {id(parameter) for parameter in model.parameters()}
    for found in gc.get_objects():  # a frozen head that the loss alone holds
        if isinstance(found, torch.nn.Parameter) and id(found) not in held:
            yield "other base weights", found


def _addresses(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[int, tuple[str, int]]:
    return {
        tensor.untyped_storage().data_ptr(): (component, tensor.untyped_storage().nbytes())
        for component, tensor in tensors
        if tensor.is_cuda
    }
