"""Tiny runs and the engines' environments; only ``make test-vllm`` and ``make test-llama`` run these tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.model.shapes import SHAPES
from pipeline.run_folder import RunFolder
from pipeline.training.train import train
from tests.support import TINY, tiny_request

Teach = Callable[[float], RunFolder]


@pytest.fixture(scope="session", autouse=True)
def servable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A tiny target that vLLM serves on a CPU, with a head tied to the embeddings and words that it prefers."""
    with pytest.MonkeyPatch.context() as patch:
        # Heads as wide as vLLM's attention on a CPU needs.
        shape = dataclasses.replace(SHAPES[TINY.name], attention_heads=2, key_value_heads=1, tied_head=True)
        patch.setitem(SHAPES, TINY.name, shape)
        # Where all words are about equally likely, as by default, the ten likeliest hardly tell two models apart.
        patch.setattr("pipeline.model.random_weights.INITIALIZER_STD", 0.1)
        patch.setenv("VERBOSITY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def teach(tmp_path_factory: pytest.TempPathFactory) -> Teach:
    """Train a tiny run whose adapter moves the answers far more than an engine rounds them."""

    def run(learning_rate: float) -> RunFolder:
        output = tmp_path_factory.mktemp("taught") / "run"
        train(tiny_request(output, accumulation_steps=1, learning_rate=learning_rate))
        return RunFolder(output)

    return run


@pytest.fixture(scope="session")
def taught(teach: Teach) -> RunFolder:
    return teach(2e-2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.engine)
