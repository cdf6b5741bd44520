"""One prepared tiny target and one short training run for all tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.model import TrainedModel, load_tokenizer, load_trained
from pipeline.runs import RunFolder
from pipeline.targets import base_model_folder
from pipeline.train import train
from tests.support import TINY, tiny_request


@pytest.fixture(scope="session")
def tiny_folder() -> Path:
    return base_model_folder(TINY)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_folder: Path) -> Any:
    return load_tokenizer(tiny_folder, TINY)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Four optimizer steps of four short examples each."""
    output = tmp_path_factory.mktemp("tiny") / "run"
    train(tiny_request(output, accumulation_steps=1))
    return RunFolder(output)


@pytest.fixture(scope="session")
def tiny_trained(tiny_run: RunFolder) -> TrainedModel:
    return load_trained(tiny_run)
