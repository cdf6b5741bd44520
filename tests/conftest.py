"""One prepared tiny target and one short training run for all tests.

What needs torch is imported where it is used: the harness is tested without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.run_folder import RunFolder
from tests.support import TINY, tiny_request

if TYPE_CHECKING:
    from pipeline.model.loading import TrainedModel


@pytest.fixture(scope="session")
def tiny_folder() -> Path:
    from pipeline.model.base_models import base_model_folder

    return base_model_folder(TINY)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_folder: Path) -> Any:
    from pipeline.model.tokenizer import load_tokenizer

    return load_tokenizer(tiny_folder, TINY)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Four optimizer steps of four short examples each."""
    from pipeline.training.train import train

    output = tmp_path_factory.mktemp("tiny") / "run"
    train(tiny_request(output, accumulation_steps=1))
    return RunFolder(output)


@pytest.fixture(scope="session")
def tiny_trained(tiny_run: RunFolder) -> TrainedModel:
    from pipeline.model.loading import load_trained

    return load_trained(tiny_run)
