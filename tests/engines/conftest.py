"""Tiny runs and the engines' environments; only ``make test-vllm`` and ``make test-llama`` run these tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.run_folder import RunFolder
from pipeline.training.train import train
from tests.support import tiny_request

Teach = Callable[[float], RunFolder]


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
