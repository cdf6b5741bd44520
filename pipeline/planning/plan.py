"""A memory and time plan made before a run: what it will need on a device, whether it fits, and what to do if not."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import GIB, Preset, Target, TrainingConfig, resolve_preset, with_compute_dtype
from pipeline.data.batches import padded_length, training_batches
from pipeline.errors import PipelineError
from pipeline.memory import missing_libraries_bytes, resident_bytes
from pipeline.model.architecture import shape_of
from pipeline.model.shapes import MistralShape
from pipeline.planning.devices import GPUS, Device, this_device
from pipeline.planning.duration import packed_duration_s, padded_duration_s
from pipeline.planning.memory_estimate import PHASES, MicroBatch, Needs
from pipeline.planning.packed_rows import plan_rows

PACKED_PHASES = ("step",)
"""Packed rows: recorded passes keep their memory, so one moment is like another."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will need on a device.

    Attributes:
        needs: Model, preset and kind of device.
        device: Where.
        examples: Of all passes.
        longest_tokens: Tokens of the longest example.
        step: How the examples of a step are taken, in words.
        phases: Moments of a step that can be the peak.
        components: Bytes of each component in each phase.
        duration_s: Seconds of training, roughly; None where the device's speed is not known.
    """

    needs: Needs
    device: Device
    examples: int
    longest_tokens: int
    step: str
    phases: Sequence[str]
    components: Mapping[str, tuple[int, ...]]
    duration_s: float | None

    @property
    def phase_bytes(self) -> tuple[int, ...]:
        """The sum of each phase."""
        return tuple(sum(column) for column in zip(*self.components.values(), strict=True))

    @property
    def peak_bytes(self) -> int:
        """The largest phase: the driver's figure on a GPU, resident memory on a CPU."""
        return max(self.phase_bytes)

    @property
    def fits(self) -> bool:
        """Whether the device has that much."""
        return self.peak_bytes <= self.device.available_bytes

    def table(self) -> str:
        """The components in GiB, a column for each phase."""
        rows: list[tuple[str, ...]] = [("GiB", *self.phases)]
        rows += [(name, *(f"{size / GIB:.3f}" for size in sizes)) for name, sizes in self.components.items()]
        rows.append(("total", *(f"{size / GIB:.3f}" for size in self.phase_bytes)))
        return "\n".join(f"{name:22}" + "".join(f"{cell:>10}" for cell in cells) for name, *cells in rows)

    def describe_run(self) -> str:
        """Sizes of the model, what is trained, the data and the optimizer steps, in words."""
        needs, preset = self.needs, self.needs.preset
        return (
            f"{preset.name}, {preset.quantization.compute_dtype}: {needs.shape.parameter_count:,} parameters; "
            f"{needs.trained_parameters:,} trained ones make an adapter file of {needs.adapter_bytes / 1e6:,.1f} MB; "
            f"{self.examples} examples of at most {self.longest_tokens} tokens, "
            f"{self.step}; {self._describe_steps()}"
        )

    def _describe_steps(self) -> str:
        window = self.needs.preset.training.window_examples
        steps, last = math.ceil(self.examples / window), self.examples % window
        count = "1 step" if steps == 1 else f"{steps} steps"
        return count + (f", the last of {last} examples" if last else f" of {window} examples")

    def describe_time(self) -> str:
        """How long training takes, in words."""
        if self.duration_s is None:
            return f"time: unknown, {self.device.name} is not in the table of GPUs"
        return f"time: about {self.duration_s / 60:.1f} min, {self.examples / self.duration_s:.2f} examples/s"

    def describe_fit(self) -> str:
        """The peak and what the device has, in words."""
        phase = self.phases[self.phase_bytes.index(self.peak_bytes)]
        available = f"{self.device.available_bytes / GIB:.2f} GiB of {self.device.name}"
        verdict = "fits" if self.fits else "does not fit"
        return f"peak: {self.peak_bytes / GIB:.2f} GiB ({phase}); {verdict} the {available}"


def make_plan(preset: Preset, shape: MistralShape, data: Any, device: Device) -> Plan:
    """Plan one run; on a CPU, what this process holds now counts as what the run's process holds before it loads.

    Args:
        preset: Its ``compute_dtype`` as the device has it.
        shape: The base model's, style rows included in its vocabulary.
        data: As for ``micro_batches``.
        device: Where.
    """
    needs = Needs(shape, preset, device.kind)
    return (_packed_plan if preset.training.padding_free else _padded_plan)(needs, device, data)


def _padded_plan(needs: Needs, device: Device, data: Any) -> Plan:
    batches = micro_batches(data, needs.preset.training)
    return Plan(
        needs,
        device,
        examples=sum(batch.examples for batch in batches),
        longest_tokens=max(batch.longest_tokens for batch in batches),
        step=f"{needs.preset.training.micro_batch_size} at a time",
        phases=PHASES,
        components=needs.components(batches, resident_bytes() + missing_libraries_bytes()),
        duration_s=padded_duration_s(needs, device, batches),
    )


def _packed_plan(needs: Needs, device: Device, data: Any) -> Plan:
    training, lengths = needs.preset.training, list(data["length"])
    require_examples(lengths)
    rows = plan_rows(needs, data, device.available_bytes)
    steps = math.ceil(len(rows.row_tokens) / rows.rows_per_window)
    again = f"{rows.checkpointed_layers} of {needs.shape.layers} layers computed again"
    return Plan(
        needs,
        device,
        examples=len(lengths) * training.epochs,
        longest_tokens=max(lengths),
        step=f"{rows.rows_per_window} x {max(rows.row_lengths)} tokens a step without padding, {again}",
        phases=PACKED_PHASES,
        components={name: (size,) for name, size in rows.components.items()},
        duration_s=packed_duration_s(needs, device, rows.row_tokens, rows.checkpointed_layers, steps),
    )


def micro_batches(data: Any, training: TrainingConfig) -> list[MicroBatch]:
    """The micro-batches that training will make of tokenised data, in its order.

    Args:
        data: Columns ``length``, ``prompt_length`` (tokens) and ``style``, as ``encoded_dataset`` returns them.
        training: Sizes, seed and order.

    Raises:
        PipelineError: There is no example.
    """
    lengths, prompts = list(data["length"]), list(data["prompt_length"])
    require_examples(lengths)
    batches = []
    for members in training_batches(list(data["style"]), lengths, training):
        longest = padded_length(max(lengths[index] for index in members), training.pad_to_multiple)
        # The position before the first answer token predicts it.
        batches.append(MicroBatch(len(members), longest, longest - min(prompts[index] for index in members) + 1))
    return batches


def require_examples(lengths: Sequence[int]) -> None:
    """Check that there is something to train on.

    Raises:
        PipelineError: There is no example.
    """
    if not lengths:
        raise PipelineError("the data holds no example; name other data with --data.")


def remedy(plan: Plan, target: Target, data: Any) -> str:
    """What to do about a plan that does not fit: the lean preset if that would, else a larger device."""
    needs = plan.needs
    lean = with_compute_dtype(resolve_preset("lean", target), needs.preset.quantization.compute_dtype)
    modules = needs.preset.adapter.target_modules
    lean = dataclasses.replace(lean, adapter=dataclasses.replace(lean.adapter, target_modules=modules))
    if needs.preset.name != lean.name:
        smaller = make_plan(lean, needs.shape, data, plan.device)
        if smaller.fits:
            return f"train with --preset lean, which needs {smaller.peak_bytes / GIB:.2f} GiB"
    if plan.device.kind == "cpu":
        return f"close other programs, or shorten the longest example ({plan.longest_tokens} tokens)"
    larger = [gpu for gpu in GPUS.values() if gpu.usable_gib * GIB >= plan.peak_bytes]
    if not larger:
        return f"no GPU of the table is large enough; shorten the longest example ({plan.longest_tokens} tokens)"
    best = min(larger, key=lambda gpu: gpu.usable_gib)
    return f"use a larger GPU ({best.name} has {best.usable_gib:g} GiB) or free what else uses this one"


def warn_of_memory(target: Target, preset: Preset, folder: Path, vocabulary_size: int, data: Any, kind: str) -> None:
    """Say on standard error, in one line, that a run is not going to fit what is free now, or cannot be planned."""
    try:
        shape = with_vocabulary(shape_of(folder), vocabulary_size)
    except PipelineError as error:
        print(f"memory: not planned: {error}", file=sys.stderr)
        return
    plan = make_plan(preset, shape, data, this_device(kind))
    if not plan.fits:
        print(f"memory: {plan.describe_fit()}; {remedy(plan, target, data)}.", file=sys.stderr)


def with_vocabulary(shape: MistralShape, tokens: int) -> MistralShape:
    """The shape once its embeddings have grown to the tokenizer's length, which counts the style tokens."""
    return dataclasses.replace(shape, vocabulary_size=max(shape.vocabulary_size, tokens))
