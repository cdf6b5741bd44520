from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipeline.files import weights_digest
from pipeline.model.random_weights import write_random_mistral
from pipeline.model.shapes import MistralShape

SHAPE = MistralShape(16, 32, 3, 2, 1, vocabulary_size=40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "first").mkdir()
    write_random_mistral(tmp_path / "first", SHAPE)
    return tmp_path / "first"


def test_the_same_seed_writes_the_same_weights_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        (again := tmp_path / str(seed)).mkdir()
        write_random_mistral(again, SHAPE, seed)
        assert (weights_digest(again) == weights_digest(folder)) == (seed == 0)


def test_no_two_layers_are_alike(folder: Path) -> None:
    queries = [load_file(file).get(f"model.layers.{n}.self_attn.q_proj.weight") for n, file in shards(folder)]
    first, second, third = (tensor for tensor in queries if tensor is not None)
    assert not first.equal(second)
    assert not second.equal(third)
    assert 0.01 < first.float().std() < 0.03


def test_the_index_names_the_file_of_every_tensor(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    held = {name: file.name for _, file in shards(folder) for name in load_file(file)}
    assert index["weight_map"] == held
    assert index["metadata"]["total_size"] == 2 * SHAPE.parameter_count


def shards(folder: Path) -> list[tuple[int, Path]]:
    return list(enumerate(sorted(folder.glob("*.safetensors"))))
