"""One prepared tiny target, one short training run and the built wheel for all tests.

What needs torch is imported where it is used: the harness is tested without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config import TARGETS
from pipeline.run_folder import RunFolder
from tests.smoke.wheel import Built, build, install
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
def embedded_tokenizer() -> Any:
    from pipeline.model.base_models import open_base_model

    return open_base_model(TARGETS["smollm2-135m"]).tokenizer


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


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def site(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages that comes first: the wheel; its requirements are this environment's."""
    folder = tmp_path_factory.mktemp("site")
    install(built.wheel, folder)
    return folder
