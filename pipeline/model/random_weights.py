"""Random weights of a model's exact shape, written shard by shard to bound memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from pipeline.files import write_json
from pipeline.model.shapes import MistralShape

INITIALIZER_STD = 0.02
"""Standard deviation of the normal distribution that Mistral's own initialisation uses."""
SHARDS_AT_ONCE = 8
"""Shards written concurrently; one of Mistral's shape takes 0.4 GiB of memory."""


def write_random_mistral(folder: Path, shape: MistralShape, seed: int = 0) -> None:
    """Write config, bfloat16 safetensors shards (one layer each) and their index."""
    from transformers import GenerationConfig

    shape.config().save_pretrained(folder)
    GenerationConfig(bos_token_id=1, eos_token_id=2).save_pretrained(folder)
    shards = list(shape.shards())
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    seeds = range(seed * len(shards), (seed + 1) * len(shards))  # independent of the order of writing
    with ThreadPoolExecutor(min(SHARDS_AT_ONCE, os.cpu_count() or 1)) as pool:
        made = pool.map(_write_shard, (folder / name for name in names), shards, seeds)
        size_bytes = sum(tqdm(made, total=len(shards), desc="random weights", unit="shard"))
    write_json(
        folder / "model.safetensors.index.json",
        {
            "metadata": {"total_size": size_bytes},
            "weight_map": {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard},
        },
    )


def _write_shard(path: Path, shard: Mapping[str, tuple[int, int]], seed: int) -> int:
    """Write one shard; returns the size of its tensors in bytes."""
    import torch
    from safetensors.torch import save_file

    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, (rows, columns) in shard.items():
        if columns:
            tensor = torch.empty(rows, columns, dtype=torch.bfloat16)
            tensors[name] = tensor.normal_(0.0, INITIALIZER_STD, generator=generator)
        else:
            tensors[name] = torch.ones(rows, dtype=torch.bfloat16)
    save_file(tensors, path, metadata={"format": "pt"})
    return sum(tensor.nbytes for tensor in tensors.values())
