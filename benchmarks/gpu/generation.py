"""How fast one answer is generated, against faster ways and the memory bandwidth.

Each way generates the same number of tokens after the same prompt, greedily, with the 4-bit base and the adapter
unmerged, as the server holds them; the ways take turns in one process. ``documented`` is plain ``generate()``;
transformers compiles no model that bitsandbytes quantised, so what is compiled here is a CUDA graph.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import GIB, GenerationConfig, Style
from pipeline.environment import apply_environment
from pipeline.files import write_json
from pipeline.run_folder import RunFolder

apply_environment()  # before torch is imported

PROMPT = "What is rate limiting?"
ROUNDS = 3
COPY_BYTES = {"cuda": 2 * GIB, "cpu": GIB // 4}
Way = Callable[[int], list[int]]
"""Generates so many tokens and returns their ids."""


def summarise(seconds: Mapping[str, list[float]], tokens: int) -> dict[str, dict[str, float]]:
    """Tokens per second of each way (median of its rounds), and the ratio to ``documented``."""
    from harness.statistics import median

    rates = {name: tokens / median(values) for name, values in seconds.items()}
    return {
        name: {"tokens_per_s": rate, "ratio": rate / rates["documented"], "spread_s": max(values) - min(values)}
        for (name, rate), values in zip(rates.items(), seconds.values(), strict=True)
    }


def copy_bandwidth(device: str) -> float:
    """Bytes per second of a large copy within the device, read and written ones counted; the best of ten."""
    import torch

    source = torch.empty(COPY_BYTES[device], dtype=torch.uint8, device=device).random_(0, 255)
    target = torch.empty_like(source)
    fastest_s = float("inf")
    for _ in range(10):
        _wait(device)
        started = time.perf_counter()
        target.copy_(source)
        _wait(device)
        fastest_s = min(fastest_s, time.perf_counter() - started)
    return 2 * source.nbytes / fastest_s


def read_bytes(model: Any) -> int:
    """Bytes of weights that one token reads: all but the embedding table, each 4-bit matrix with its scales."""
    table = {id(parameter) for parameter in model.get_input_embeddings().parameters()}
    table -= {id(parameter) for parameter in model.get_output_embeddings().parameters()}
    total = 0
    for parameter in model.parameters():
        if id(parameter) not in table:
            total += parameter.nbytes
            if (state := getattr(parameter, "quant_state", None)) is not None:
                total += state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0)
    return total


def ways(model: Any, tokenizer: Any, device: str) -> dict[str, Callable[[], Way]]:
    """How each way is made ready; making it ready is not timed."""
    import torch

    from pipeline.generation.generate import decoding, styled_prompt_ids

    ids = torch.tensor([styled_prompt_ids(tokenizer, PROMPT, Style.VERBOSE)], device=model.device)

    def generate(**settings: Any) -> Way:
        def run(tokens: int) -> list[int]:
            limits = decoding(GenerationConfig(min_new_tokens=tokens, max_new_tokens=tokens), tokenizer)
            for name, value in settings.items():
                setattr(limits, name, value)
            with torch.inference_mode():
                output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=limits)
            answer: list[int] = output[0, ids.shape[1] :].tolist()
            return answer

        return run

    found: dict[str, Callable[[], Way]] = {
        "documented": generate,
        "static cache": lambda: generate(cache_implementation="static", disable_compile=True),
    }
    found[f"static cache, {'CUDA graph' if device == 'cuda' else 'own loop'}"] = lambda: _graph_way(model, ids)
    return found


def _graph_way(model: Any, ids: Any) -> Way:
    """One decoding step recorded as a CUDA graph and replayed for every token."""
    from benchmarks.gpu.graph import GraphDecoder

    decoder = GraphDecoder(model, slots=512)
    return lambda tokens: decoder.generate(ids, tokens)


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def measure(run: RunFolder, device: str, base_model: str | None, tokens: int) -> dict[str, Any]:
    """Time every way; one that fails is named with its error and leaves the others."""
    import torch

    from pipeline.model.loading import load_trained

    trained = load_trained(run, device=device, base_model=base_model)
    ready: dict[str, Way] = {}
    notes: dict[str, dict[str, Any]] = {}
    first: list[int] = []
    for name, prepare in ways(trained.model, trained.tokenizer, device).items():
        started = time.perf_counter()
        try:
            way = prepare()
            answer = way(tokens)  # warm-up, not timed
        except Exception as error:  # a way that this software cannot go must not cost the figures of the others
            notes[name] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            continue
        first = first or answer
        same = next((i for i, pair in enumerate(zip(first, answer, strict=True)) if pair[0] != pair[1]), tokens)
        notes[name] = {"preparation_s": time.perf_counter() - started, "leading_equal_tokens": same}
        ready[name] = way
        print(name, notes[name], flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(ROUNDS):
        for name, way in ready.items():
            _wait(device)
            started = time.perf_counter()
            way(tokens)
            seconds[name].append(time.perf_counter() - started)
    memory = {}
    if device == "cuda":
        free_bytes, total_bytes = torch.cuda.mem_get_info()
        memory = {"cuda_reserved_gib": torch.cuda.max_memory_reserved() / GIB}
        memory["cuda_driver_gib"] = (total_bytes - free_bytes) / GIB
    figures = summarise(seconds, tokens)
    weight_bytes, bandwidth = read_bytes(trained.model), copy_bandwidth(device)
    return {
        "tokens": tokens,
        "ways": {name: {**note, **figures.get(name, {})} for name, note in notes.items()},
        "weight_bytes": weight_bytes,
        "copy_bytes_per_s": bandwidth,
        "limit_tokens_per_s": bandwidth / weight_bytes,
        "memory": memory,
    }


def main() -> int:
    """Measure one run's model and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a completed training run")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--base-model", metavar="DIR")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args()
    from benchmarks.gpu.origin import origin

    run = RunFolder(options.run)
    record = run.read_record()
    figures = measure(run, options.device, options.base_model, options.tokens)
    write_json(options.output, {**origin(), "target": record["target"], "preset": record["preset"]["name"], **figures})
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
