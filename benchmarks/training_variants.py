"""Training one variant of the embedded target in its own process, to measure its peak memory.

``python -m benchmarks.training_variants VARIANT EXAMPLES DIR`` trains on the first examples of the shipped data and
leaves the run in DIR; for the presets it also writes the loss on the last answers there.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.commands import DEFAULT_TARGET
from pipeline.config import PRESETS, Preset, get_target, resolve_preset
from pipeline.data.formats import read_examples
from pipeline.environment import apply_environment
from pipeline.files import TRAINING_DATA, write_json
from pipeline.run_folder import RunFolder


def _with(preset: Preset, *, adapter: Mapping[str, Any] | None = None, **training: Any) -> Preset:
    return dataclasses.replace(
        preset,
        adapter=dataclasses.replace(preset.adapter, **(adapter or {})),
        training=dataclasses.replace(preset.training, **training),
    )


_GOLDEN = PRESETS["golden"]
_LEAN = resolve_preset("lean", get_target(DEFAULT_TARGET), epochs=1)
VARIANTS: Mapping[str, Preset] = MappingProxyType(
    {
        "golden": _GOLDEN,
        "lean": _LEAN,
        "golden, two rows trained": _with(_GOLDEN, adapter={"modules_to_save": ()}),
        "golden, no upcast": _with(_GOLDEN, upcast_embeddings=False),
        "golden, no checkpointing": _with(_GOLDEN, gradient_checkpointing=False),
        "golden, no dropout": _with(_GOLDEN, adapter={"dropout": 0.0}),
        "golden, sorted fours": _with(_GOLDEN, micro_batch_size=4, accumulation_steps=4, stratify_windows=True),
        "golden, padded to eights": _with(_GOLDEN, pad_to_multiple=8),
        "lean, ones": _with(_LEAN, micro_batch_size=1, accumulation_steps=4),
    }
)
"""The two presets, golden with one change of lean at a time, and lean with golden's micro-batch."""
PRESET_NAMES = ("golden", "lean")
HELD_OUT_EXAMPLES = 64
HELD_OUT_FILE = "held_out.json"


def held_out_loss(run: RunFolder) -> float:
    """Mean negative log-likelihood of the last examples' answers given their styled prompts, in nats per token."""
    from pipeline.generation.scoring import token_nll
    from pipeline.model.loading import load_trained

    trained = load_trained(run)
    requests = [
        (example.words, example.style, tuple(trained.tokenizer(example.completion, add_special_tokens=False).input_ids))
        for example in read_examples(TRAINING_DATA)[-HELD_OUT_EXAMPLES:]
    ]
    nats = [value for row in token_nll(trained.model, trained.tokenizer, requests) for value in row]
    return sum(nats) / len(nats)


def main() -> None:
    """Train one variant; for the presets, also compute the held-out loss."""
    from pipeline.training.train import TrainingRequest, train

    variant, examples, folder = sys.argv[1:]
    preset = VARIANTS[variant]
    preset = dataclasses.replace(preset, training=dataclasses.replace(preset.training, max_examples=int(examples)))
    target = get_target(DEFAULT_TARGET)
    train(TrainingRequest(target, preset, TRAINING_DATA, Path(folder), target.device))
    if variant in PRESET_NAMES:
        write_json(Path(folder) / HELD_OUT_FILE, held_out_loss(RunFolder(Path(folder))))


if __name__ == "__main__":
    apply_environment()  # before torch is imported
    main()
