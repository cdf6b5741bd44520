"""The project as it is installed, for the tests that see nothing of the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.smoke.wheel import Built, build, install


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def site(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages that comes first: the wheel; its requirements are this environment's."""
    folder = tmp_path_factory.mktemp("site")
    install(built.wheel, folder)
    return folder
