"""A run whose exports are worth comparing."""

from __future__ import annotations

import pytest

from pipeline.run_folder import RunFolder
from pipeline.training.train import train
from tests.support import tiny_request


@pytest.fixture(scope="package")
def taught(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A tiny run whose adapter moves the answers far more than bfloat16 rounds them."""
    output = tmp_path_factory.mktemp("taught") / "run"
    train(tiny_request(output, accumulation_steps=1, learning_rate=2e-2))
    return RunFolder(output)
