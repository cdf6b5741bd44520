"""``python -m benchmarks.training_profile DIR``: where lean training of the embedded target spends its time.

Writes ``profile.json`` and ``profile.md``: seconds of torch's operators by kind; the remainder is Python's.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.files import write_text_atomically
from harness.provenance import collect
from pipeline.commands import DEFAULT_TARGET
from pipeline.config import get_target, resolve_preset
from pipeline.environment import apply_environment
from pipeline.files import TRAINING_DATA

apply_environment()  # before torch is imported

EXAMPLES = 16
KINDS = (
    ("unpacking 4-bit weights", ("bitsandbytes::dequantize", "bitsandbytes::gemm")),
    ("matrix products", ("aten::mm", "aten::addmm")),
    ("attention's products", ("aten::bmm",)),
    ("copies and casts", ("aten::copy_", "aten::fill_", "aten::clone", "aten::cat", "aten::zero_")),
    ("softmax and loss", ("aten::_softmax", "aten::exp", "aten::logsumexp", "aten::sub", "aten::scatter")),
    ("other arithmetic", ("aten::",)),
)
"""Kinds of operators by prefixes of their names; the first match counts."""
PYTHON = "Python, autograd's bookkeeping, data"


def by_kind(operators: Iterable[tuple[str, float]], wall_s: float) -> dict[str, float]:
    """Seconds by kind, from each operator's name and self time; the rest of the wall time is Python's."""
    seconds = {kind: 0.0 for kind, _ in KINDS}
    for name, own_s in operators:
        for kind, beginnings in KINDS:
            if name.startswith(beginnings):
                seconds[kind] += own_s
                break
    return {**seconds, PYTHON: wall_s - sum(seconds.values())}


def to_markdown(document: dict[str, Any]) -> str:
    """The kinds as a table, sorted by time."""
    ordered = sorted(document["seconds"].items(), key=lambda item: -item[1])
    cells = [(kind, f"{own_s:.2f} s", f"{own_s / document['wall_s']:.0%}") for kind, own_s in ordered]
    return tabulate(cells, headers=("kind", "time", "share"), tablefmt="github", disable_numparse=True) + "\n"


def measure() -> dict[str, Any]:
    """Profile the micro-batches of the first examples, after one pass over them as warm-up."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from pipeline.data.batches import training_batches
    from pipeline.data.store import tokenised
    from pipeline.model.adapter import attach_adapter
    from pipeline.model.base_models import open_base_model
    from pipeline.model.loading import hardware_preset, load_base
    from pipeline.model.style_embeddings import add_style_rows
    from pipeline.training.collation import padded_tensors
    from pipeline.training.frozen_head_loss import share_inputs, use_answer_loss

    target = get_target(DEFAULT_TARGET)
    preset = hardware_preset(resolve_preset("lean", target, max_examples=EXAMPLES, epochs=1), "cpu")
    files = open_base_model(target)
    tokenizer = files.tokenizer
    data, _ = tokenised(TRAINING_DATA, tokenizer, files.folder, preset.training)
    base = load_base(files.folder, preset.quantization, "cpu")
    add_style_rows(base, tokenizer)
    model = attach_adapter(base, tokenizer, preset).train()
    use_answer_loss(model)
    share_inputs(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=preset.training.learning_rate)
    batches = training_batches(list(data["style"]), list(data["length"]), preset.training)
    tensors = partial(padded_tensors, pad_id=tokenizer.pad_token_id, multiple=preset.training.pad_to_multiple)

    def once() -> float:
        started = time.perf_counter()
        for number, batch in enumerate(batches, 1):
            inputs = tensors([data[index] for index in batch])
            with torch.autocast("cpu", torch.bfloat16, enabled=preset.training.bf16):
                loss = model(**inputs, num_items_in_batch=1).loss
            loss.backward()
            if number % preset.training.accumulation_steps == 0:
                optimizer.step()
                optimizer.zero_grad()
        return time.perf_counter() - started

    once()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        wall_s = once()
    operators = [(event.key, event.self_cpu_time_total / 1e6) for event in profiler.key_averages()]
    return {
        "examples": EXAMPLES,
        "tokens": sum(data["length"]),
        "wall_s": wall_s,
        "seconds": by_kind(operators, wall_s),
    }


def main() -> None:
    """Write profile.json and profile.md."""
    folder = Path(sys.argv[1])
    document = {"command": "make bench", "provenance": collect(Path(__file__).resolve().parents[1]), **measure()}
    write_text_atomically(folder / "profile.json", json.dumps(document, indent=1) + "\n")
    write_text_atomically(folder / "profile.md", to_markdown(document))
    print(to_markdown(document))


if __name__ == "__main__":
    main()
