"""``python -m benchmarks.training_profile DIR``: where lean training of the embedded target spends a core's time.

Writes ``profile.json`` and ``profile.md``: seconds of torch's operators by kind; the remainder is Python's. Each core
trains its share of every window alone, so the shares of one core are profiled, in one thread, without the optimizer.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
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

EXAMPLES = 64
CORES = 2
KINDS = (
    ("matrix products", ("aten::mm", "aten::addmm")),
    ("attention's products", ("aten::bmm", "aten::baddbmm")),
    ("copies and casts", ("aten::copy_", "aten::_to_copy", "aten::fill_", "aten::clone", "aten::cat", "aten::zero_")),
    ("softmax and loss", ("aten::_softmax", "aten::log", "aten::amax", "aten::sub", "aten::gather", "aten::scatter")),
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
    """The kinds as a table, sorted by time, and the arithmetic of the frozen layers beside a core's own product."""
    ordered = sorted(document["seconds"].items(), key=lambda item: -item[1])
    cells = [(kind, f"{own_s:.2f} s", f"{own_s / document['wall_s']:.0%}") for kind, own_s in ordered]
    table = tabulate(cells, headers=("kind", "time", "share"), tablefmt="github", disable_numparse=True)
    reached, possible = document["gflop_per_s"], document["matmul_gflop_per_s"]
    return f"{table}\n\nOne core, without the profiler: {reached:.0f} of {possible:.0f} GFLOP/s.\n"


def measure() -> dict[str, Any]:
    """Profile one core's shares of the first windows, after one pass over them as warm-up."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.matmul import matmul_gflop_per_s
    from pipeline.data.batches import packed_batches
    from pipeline.data.store import tokenised
    from pipeline.model.adapter import attach_adapter
    from pipeline.model.base_models import open_base_model
    from pipeline.model.loading import hardware_preset, load_base
    from pipeline.model.shapes import MistralShape
    from pipeline.model.style_embeddings import add_style_rows
    from pipeline.planning.memory_estimate import Needs
    from pipeline.training.collation import packed_tensors, split_row
    from pipeline.training.frozen_head_loss import use_answer_loss
    from pipeline.training.packed_model import PackedModel
    from pipeline.training.packed_step import ROW_TENSORS

    target = get_target(DEFAULT_TARGET)
    preset = hardware_preset(resolve_preset("lean", target, max_examples=EXAMPLES, epochs=1), "cpu")
    files = open_base_model(target)
    data, _ = tokenised(TRAINING_DATA, files.tokenizer, files.folder, preset.training)
    base = load_base(files.folder, preset.quantization, "cpu")
    add_style_rows(base, files.tokenizer)
    model = attach_adapter(base, files.tokenizer, preset).train()
    lengths = list(data["length"])
    packed = PackedModel(model, use_answer_loss(model), max(lengths), checkpointed_layers=0)
    shares = []
    for window in packed_batches(list(data["style"]), lengths, preset.training, parts=1):
        tokens = sum(lengths[index] for index in window)
        row = packed_tensors([data[index] for index in window], files.tokenizer.pad_token_id, [tokens], len(window))
        shares.append(split_row({name: row[name] for name in ROW_TENSORS}, CORES)[0])
    scale = torch.tensor(1 / EXAMPLES)
    torch.set_num_threads(1)

    def once() -> float:
        started = time.perf_counter()
        for share in shares:
            torch.autograd.grad(packed.loss(share, scale), packed.trained)
        return time.perf_counter() - started

    once()
    plain_s = once()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        wall_s = once()
    operators = [(event.key, event.self_cpu_time_total / 1e6) for event in profiler.key_averages()]
    tokens = sum(share["input_ids"].shape[1] for share in shares)
    parameters = Needs(MistralShape.of_folder(files.folder), preset, "cpu").projection_parameters
    return {
        "examples": EXAMPLES,
        "tokens": tokens,
        "wall_s": wall_s,
        "plain_s": plain_s,
        "gflop_per_s": 4 * tokens * parameters / plain_s / 1e9,  # forward, and back to the layers' inputs
        "matmul_gflop_per_s": matmul_gflop_per_s(),
        "seconds": by_kind(operators, wall_s),
    }


def main() -> None:
    """Write profile.json and profile.md."""
    folder = Path(sys.argv[1])
    document = {
        "command": "python -m benchmarks.training_profile",
        "provenance": collect(Path(__file__).resolve().parents[1]),
        **measure(),
    }
    write_text_atomically(folder / "profile.json", json.dumps(document, indent=1) + "\n")
    write_text_atomically(folder / "profile.md", to_markdown(document))
    print(to_markdown(document))


if __name__ == "__main__":
    main()
