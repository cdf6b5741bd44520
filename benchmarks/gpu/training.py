"""How fast a preset trains on a GPU, and what each lever of the padding-free path gives: ``python -m
benchmarks.gpu.training {run,levers}``.

``run`` trains with the product's own trainer and reads the steady rate off the recorded steps, the first few left out.
``levers`` loads one model and times bare steps, each lever added to the ones before, with the gradient of every variant
held against the padded one. Both give the arithmetic as a share of a matrix product's rate on the same machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pipeline.config import PRESETS, TARGETS, Preset, Target, resolve_preset
from pipeline.environment import apply_environment
from pipeline.files import TRAINING_DATA, write_json

apply_environment()  # before torch is imported

WARM_STEPS = 4
"""Optimizer steps before the steady ones: kernels are loaded and passes recorded in them."""
PROFILED_STEPS = 1
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
MATRIX = 8192


def matrix_product_tflops(device: str) -> float:
    """Rate of a bfloat16 product of random square matrices, in 1e12 operations per second."""
    import torch

    size, repeats = (MATRIX, 20) if device == "cuda" else (256, 2)
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    wait(device)
    started = time.perf_counter()
    for _ in range(repeats):
        left @ right
    wait(device)
    return 2 * size**3 * repeats / (time.perf_counter() - started) / 1e12


def wait(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def profiled(device: str, steps: Callable[[], object], count: int) -> dict[str, Any]:
    """What ``count`` steps launch and how long the device is busy with it, per step."""
    from torch.profiler import ProfilerActivity, profile

    # Without the CPU's operators: launches are CUDA's own events, and sorting through a million others takes minutes.
    activity = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as recorded:
        steps()
        wait(device)
    return summarized(recorded.key_averages(), count)


def summarized(events: Sequence[Any], count: int) -> dict[str, Any]:
    """The profiler's averages as figures per step."""
    kernels = [event for event in events if event.device_type.name == "CUDA"]
    launching = [event for event in events if event.device_type.name == "CPU" and event.key.startswith(LAUNCHES)]
    longest = sorted(kernels, key=lambda event: -event.self_device_time_total)[:16]
    return {
        "kernels": sum(event.count for event in kernels) / count,
        "launches": sum(event.count for event in launching) / count,
        "busy_s": sum(event.self_device_time_total for event in kernels) / count / 1e6,
        "longest": [
            {"kernel": event.key[:90], "ms": event.self_device_time_total / count / 1e3, "count": event.count / count}
            for event in longest
        ],
    }


def driver_gib() -> dict[str, float]:
    """Peak memory of this process."""
    from pipeline.memory import peak_memory

    return peak_memory("cuda")


def model_operations(parameters: int, tokens: int) -> float:
    """Operations that a step needs at least: two per frozen weight and token forward, and two back; no recomputing."""
    return 4.0 * parameters * tokens


def measure_run(target: Target, preset: Preset, device: str, base_model: str | None, work: Path) -> dict[str, Any]:
    """Train, and read the steady rate and a profile of two of its steps."""
    from transformers import TrainerCallback

    import pipeline.training.train as training

    profile_of: dict[str, Any] = {}
    steps = preset.training.max_examples // preset.training.window_examples  # type: ignore[operator]

    class Profiler(TrainerCallback):  # type: ignore[misc]
        recorded: Any = None

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            from torch.profiler import ProfilerActivity, profile

            if state.global_step == steps - PROFILED_STEPS and device == "cuda":
                wait(device)
                self.recorded = profile(activities=[ProfilerActivity.CUDA])
                self.recorded.__enter__()
            elif state.global_step == steps and self.recorded is not None:
                wait(device)
                self.recorded.__exit__(None, None, None)
                profile_of.update(summarized(self.recorded.key_averages(), PROFILED_STEPS))

    class Profiled(training.StepRecordingTrainer):  # type: ignore[name-defined,misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.add_callback(Profiler())

    request = training.TrainingRequest(target, preset, TRAINING_DATA, work, device, base_model)
    with patch.object(training, "StepRecordingTrainer", Profiled):
        record = training.train(request)
    rows = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    steady = rows[WARM_STEPS - 1 : -PROFILED_STEPS]
    seconds = steady[-1]["elapsed_s"] - steady[0]["elapsed_s"]
    examples = preset.training.window_examples * (len(steady) - 1)
    tokens = sum(row["tokens"] for row in steady[1:])
    return {
        "examples_per_s": examples / seconds,
        "tokens_per_s": tokens / seconds,
        "step_s": seconds / (len(steady) - 1),
        "warm_s": rows[WARM_STEPS - 1]["elapsed_s"],
        "losses": [row["loss"] for row in rows],
        "peak_memory": record["peak_memory"],
        **({"profile": profile_of} if profile_of else {}),
    }


def measure_levers(target: Target, device: str, base_model: str | None, seconds: float) -> list[dict[str, Any]]:
    """Bare steps of one loaded model, each lever added to those before it."""
    from benchmarks.gpu.variants import Variants

    variants = Variants(target, device, base_model)
    results = []
    for name in variants.names:
        try:
            results.append({"variant": name, **variants.measure(name, seconds)})
        except Exception as error:  # the other variants are worth their figures
            results.append({"variant": name, "error": f"{type(error).__name__}: {error}"[:2000]})
        print(json.dumps({key: value for key, value in results[-1].items() if key != "profile"}), flush=True)
    return results


def main() -> int:
    """Measure in this process and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "levers"))
    parser.add_argument("--target", choices=tuple(TARGETS), required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--base-model", metavar="DIR")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="lean")
    parser.add_argument(
        "--padded", action="store_true", help="lean's padded micro-batches, as several processes take them"
    )
    parser.add_argument("--examples", type=int, default=320)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each lever")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args()
    from benchmarks.gpu.origin import origin
    from pipeline.model.base_models import base_model_folder
    from pipeline.model.shapes import MistralShape

    target = TARGETS[options.target]
    shape = MistralShape.of_folder(base_model_folder(target, options.base_model))
    rate = matrix_product_tflops(options.device)
    document: dict[str, Any] = {**origin(), "target": target.name, "matrix_product_tflops": rate}
    if options.what == "levers":
        document["levers"] = measure_levers(target, options.device, options.base_model, options.seconds)
    else:
        changes: dict[str, Any] = {"max_examples": options.examples, "save_steps": 100000}
        if options.padded:
            changes["padding_free"] = False
        preset = resolve_preset(options.preset, target, **changes)
        with tempfile.TemporaryDirectory() as work:
            figures = measure_run(target, preset, options.device, options.base_model, Path(work) / "run")
        figures["mfu"] = model_operations(shape.parameter_count, 1) * figures["tokens_per_s"] / (rate * 1e12)
        document |= {"preset": options.preset, "padded": options.padded, "run": figures}
        print(
            json.dumps({key: value for key, value in figures.items() if key not in ("losses", "profile")}), flush=True
        )
    write_json(options.output, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
