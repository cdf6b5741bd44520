"""The peak of training, taken apart and held against ``verbosity plan``: ``python -m benchmarks.gpu.memory``.

Two optimizer steps of two micro-batches each run through the real trainer, so that weights, gradients and moments are
all there; the second is recorded. It uses the largest padded micro-batch that the run makes of the shipped data, or one
example of 512 tokens. Packed rows keep to their plan's bound, which the acceptance measures. On a CPU nothing is
recorded, and the two steps show only that they run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pipeline.config import GIB, PRESETS, TARGETS, Preset, Target, resolve_preset
from pipeline.environment import apply_environment
from pipeline.files import TRAINING_DATA, write_json

apply_environment()  # before torch is imported

LONG_TOKENS = 512
CASES = ("data", "512")
HISTORY_EVENTS = 2_000_000


@dataclass(frozen=True)
class Case:
    """One peak to look at.

    Attributes:
        name: One of ``CASES``.
        preset: With the case's micro-batch, two of them to a step.
        rows: Encoded examples of one micro-batch.
    """

    name: str
    preset: Preset
    rows: Sequence[Mapping[str, Any]]


def make_case(name: str, preset_name: str, target: Target, base_folder: Path) -> Case:
    """The largest micro-batch of the preset's own run, or one example of ``LONG_TOKENS``."""
    from pipeline.data.batches import training_batches
    from pipeline.data.store import tokenised
    from pipeline.model.tokenizer import load_tokenizer

    padded = {"accumulation_steps": 2, "padding_free": False}
    preset = resolve_preset(preset_name, target)
    training = preset.training
    tokenizer = load_tokenizer(base_folder, target)
    data, _ = tokenised(TRAINING_DATA, tokenizer, base_folder, training)
    lengths, prompts = list(data["length"]), list(data["prompt_length"])
    if name == "data":
        batches = training_batches(list(data["style"]), lengths, training)
        rows = [data[index] for index in largest(batches, lengths, prompts)]
        return Case(name, resolve_preset(preset_name, target, **padded), rows)
    example = data[lengths.index(max(lengths))]
    rows = [lengthened(example["input_ids"], example["prompt_length"], LONG_TOKENS)]
    return Case(name, resolve_preset(preset_name, target, micro_batch_size=1, **padded), rows)


def largest(batches: Sequence[Sequence[int]], lengths: Sequence[int], prompts: Sequence[int]) -> Sequence[int]:
    """The micro-batch with most tokens, padding included; of several, the one with most logits."""

    def size(batch: Sequence[int]) -> tuple[int, int]:
        tokens = len(batch) * max(lengths[index] for index in batch)
        return tokens, tokens - len(batch) * min(prompts[index] for index in batch)

    return max(batches, key=size)


def lengthened(ids: Sequence[int], prompt_length: int, tokens: int) -> dict[str, Any]:
    """An example whose answer is said again until it has ``tokens`` tokens; it ends as it did."""
    answer = list(ids[prompt_length:-1])
    repeated = answer * (tokens // len(answer) + 1)
    whole = [*ids[:prompt_length], *repeated][: tokens - 1]
    return {"input_ids": [*whole, ids[-1]], "prompt_length": prompt_length}


def measure(case: Case, target: Target, device: str, base_model: str | None, work: Path) -> dict[str, Any]:
    """Train two steps and say what the peak of the second was made of."""
    import pipeline.training.train
    from benchmarks.gpu.recording import Recording, recording_trainer

    recording = Recording(case.rows, history_events=HISTORY_EVENTS if device == "cuda" else 0)
    request = pipeline.training.train.TrainingRequest(target, case.preset, TRAINING_DATA, work, device, base_model)
    with patch.object(pipeline.training.train, "StepRecordingTrainer", recording_trainer(recording)):
        record = pipeline.training.train.train(request)
    if device == "cpu":
        return {"peak_memory": record["peak_memory"]}
    from benchmarks.gpu.snapshot import Shapes, peak_of

    trains_head = not case.preset.adapter.trains_style_rows_only
    shapes = Shapes(recording.vocabulary_size, recording.hidden_size, trains_head)
    peak = peak_of(recording.trace, recording.persistent, recording.before_bytes, shapes)
    figures = record["peak_memory"]
    peak["components_gib"]["allocator"] = figures["cuda_reserved_gib"] - figures["cuda_allocated_gib"]
    peak["components_gib"]["CUDA context"] = figures["cuda_driver_gib"] - figures["cuda_reserved_gib"]
    return {"peak_memory": figures, "event_count": len(recording.trace), **peak}


def planned(case: Case, target: Target, device: str, base_folder: Path, in_update: bool | None) -> dict[str, Any]:
    """What ``verbosity plan`` says of the same micro-batch: its peak, and the components at the measured moment.

    Args:
        case: What was measured.
        target: Its base model.
        device: ``cpu`` or ``cuda``.
        base_folder: Folder of the base model.
        in_update: Whether the measured peak lay in the optimizer's step; None where that is not known.
    """
    from pipeline.memory import resident_bytes
    from pipeline.model.loading import hardware_preset
    from pipeline.model.shapes import MistralShape
    from pipeline.model.tokenizer import load_tokenizer
    from pipeline.planning.memory_estimate import PHASES, Needs
    from pipeline.planning.plan import with_vocabulary

    shape = with_vocabulary(MistralShape.of_folder(base_folder), len(load_tokenizer(base_folder, target)))
    needs = Needs(shape, hardware_preset(case.preset, device), device)
    components = needs.components([_micro_batch(case)], resident_bytes())
    phases = [sum(column) for column in zip(*components.values(), strict=True)]
    among = [i for i, name in enumerate(PHASES) if in_update is None or (name == "update") == in_update]
    moment = max(among, key=lambda index: phases[index])
    return {
        "phase": PHASES[moment],
        "peak_gib": max(phases) / GIB,
        "components_gib": {name: sizes[moment] / GIB for name, sizes in components.items()},
    }


def _micro_batch(case: Case) -> Any:
    from pipeline.data.batches import padded_length
    from pipeline.planning.memory_estimate import MicroBatch

    longest = max(len(row["input_ids"]) for row in case.rows)
    longest = padded_length(longest, case.preset.training.pad_to_multiple)
    return MicroBatch(len(case.rows), longest, longest - min(row["prompt_length"] for row in case.rows) + 1)


def main() -> int:
    """Measure one case in this process and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=tuple(TARGETS), required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--base-model", metavar="DIR")
    parser.add_argument("--preset", choices=tuple(PRESETS), required=True)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args()
    from benchmarks.gpu.origin import origin
    from pipeline.model.base_models import base_model_folder

    target = TARGETS[options.target]
    folder = base_model_folder(target, options.base_model)
    case = make_case(options.case, options.preset, target, folder)
    with tempfile.TemporaryDirectory() as work:
        measured = measure(case, target, options.device, options.base_model, Path(work) / "run")
    batch = _micro_batch(case)
    document = {
        **origin(),
        "target": target.name,
        "preset": options.preset,
        "case": case.name,
        "micro_batch": {"examples": batch.examples, "longest_tokens": batch.longest_tokens},
        "measured": measured,
        "planned": planned(case, target, options.device, folder, measured.get("in_update")),
    }
    write_json(options.output, document)
    print(json.dumps({key: document[key] for key in ("micro_batch", "measured", "planned")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
