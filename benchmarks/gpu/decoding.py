"""What one decoding step of the continuous engine takes: wall time, the device's share, kernels, by batch size.

Each form of the base's weights is prepared in turn. Steps follow each other as in the engine, which waits for the
tokens of each; the device's time is that of the same steps started without waiting.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from pipeline.config import GENERATION_PRESETS, GIB, Style
from pipeline.environment import apply_environment
from pipeline.files import write_json
from pipeline.run_folder import RunFolder

apply_environment()  # before torch is imported

PROMPT = "What is rate limiting?"
FORMS = {"cuda": ("dequantised", "nf4"), "cpu": ("dequantised",)}
SHOWN_KERNELS = 12


def measure(run: RunFolder, device: str, base_model: str | None, sizes: Sequence[int], steps: int) -> dict[str, Any]:
    """Every form of the weights; one that fails is named with its error and leaves the others."""
    import torch

    from pipeline.model.loading import load_trained

    trained = load_trained(run, device=device, base_model=base_model)
    found: dict[str, Any] = {}
    for form in FORMS[device]:
        try:
            with torch.inference_mode():
                found[form] = _measure_form(trained, device, form, sizes, steps)
        except Exception as error:  # a form that this software cannot use must not cost the figures of the others
            found[form] = {"error": f"{type(error).__name__}: {str(error)[:1000]}"}
        print(form, json.dumps(found[form]), flush=True)
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    return {"target": trained.target.name, "torch": torch.__version__, "steps": steps, "forms": found}


def _measure_form(trained: Any, device: str, form: str, sizes: Sequence[int], steps: int) -> dict[str, Any]:
    from pipeline.engines.decoder import Decoder
    from pipeline.generation.generate import styled_prompt_ids

    started = time.perf_counter()
    decoder = Decoder(trained.model, trained.tokenizer.eos_token_id, max(sizes), form=form)  # type: ignore[arg-type]
    preparation_s = time.perf_counter() - started
    ids = styled_prompt_ids(trained.tokenizer, PROMPT, Style.VERBOSE)
    preset = GENERATION_PRESETS[Style.VERBOSE]

    def begin() -> None:
        decoder.read(ids, 0, preset)
        for slot in range(max(sizes)):
            decoder.join(slot, len(ids))

    rows = []
    for size in sizes:
        begin()
        decoder.launch(size, len(ids) + 1)()
        decoder.launch(size, len(ids) + steps)()
        prompt_s = _seconds(lambda: decoder.read(ids, 0, preset)(), device)
        begin()
        wall_s = _seconds(partial(_step_by_step, decoder, size, len(ids), steps), device) / steps
        begin()
        device_s = _seconds(partial(_unwaited, decoder, size, len(ids), steps), device) / steps
        begin()
        rows.append(
            {
                "answers": size,
                "tokens_per_s": size / wall_s,
                "step_ms": 1000 * wall_s,
                "device_ms": 1000 * device_s if device == "cuda" else None,
                "prompt_ms": 1000 * prompt_s,
                **_profile(partial(_step_by_step, decoder, size, len(ids), 1), device),
            }
        )
    return {"preparation_s": preparation_s, "slot_tokens": decoder.slot_tokens, **_memory(device), "rows": rows}


def _step_by_step(decoder: Any, size: int, start: int, steps: int) -> None:
    for number in range(steps):
        decoder.launch(size, start + 1 + number)()


def _unwaited(decoder: Any, size: int, start: int, steps: int) -> None:
    """On a CPU nothing is computed, since a step computes when its tokens are asked for."""
    for number in range(steps):
        decoder.launch(size, start + 1 + number)


def _seconds(work: Callable[[], Any], device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _profile(step: Callable[[], Any], device: str) -> dict[str, Any]:
    """Kernels of a step (operators on a CPU) with the most time."""
    from torch.profiler import ProfilerActivity, profile

    kind = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    with profile(activities=[kind]) as seen:
        step()
    key = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = sorted(seen.key_averages(), key=lambda event: -getattr(event, key))
    return {
        "kernels": sum(event.count for event in events),
        "busy_ms": sum(getattr(event, key) for event in events) / 1000,
        "longest": [
            {"name": event.key[:100], "count": event.count, "ms": getattr(event, key) / 1000}
            for event in events[:SHOWN_KERNELS]
        ],
    }


def _memory(device: str) -> dict[str, float]:
    import torch

    if device != "cuda":
        return {}
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    return {
        "cuda_allocated_gib": torch.cuda.memory_allocated() / GIB,
        "cuda_driver_gib": (total_bytes - free_bytes) / GIB,
    }


def to_markdown(document: Mapping[str, Any]) -> str:
    """One row for each form of the weights and number of answers."""
    headers = ("base's weights", "answers in a step", "tokens/s", "a step", "GPU busy", "kernels", "reading a prompt")
    rows = [
        (
            form,
            row["answers"],
            f"{row['tokens_per_s']:,.0f}",
            *(f"{row[name]:.1f} ms" for name in ("step_ms", "busy_ms")),
            f"{row['kernels']:,}",
            f"{row['prompt_ms']:.1f} ms",
        )
        for form, measured in document["forms"].items()
        for row in measured["rows"]
    ]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True) + "\n"


def main() -> int:
    """Measure one run's model and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a completed training run")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--base-model", metavar="DIR")
    parser.add_argument("--answers", type=int, nargs="+", default=[1, 8, 32], help="answers in a step")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args()
    from benchmarks.gpu.origin import origin

    run = RunFolder(options.run)
    figures = measure(run, options.device, options.base_model, options.answers, options.steps)
    write_json(options.output, {**origin(), **figures})
    for form, measured in figures["forms"].items():
        for row in measured.get("rows", ()):
            print(form, {name: value for name, value in row.items() if name != "longest"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
