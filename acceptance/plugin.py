"""Loads the suite's pytest plugin where a run can mean the suite: elsewhere its options would be in a project's way.

Installing the project loads this module in every pytest, so it imports nothing of the project.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_SUITE = Path(__file__).resolve().parent


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Load ``acceptance.judging``, whose options join the command line."""
    config: pytest.Config | None = pluginmanager.get_plugin("pytestconfig")
    if config is not None and _means_the_suite(config.invocation_params):
        pluginmanager.import_plugin("acceptance.judging")


def _means_the_suite(given: pytest.Config.InvocationParams) -> bool:
    """Whether pytest was started in the suite's checkout, or with its path or importable name."""
    if given.dir.resolve().is_relative_to(_SUITE.parent):
        return True
    names = [str(argument).partition("::")[0] for argument in given.args]
    paths = [(given.dir / name).resolve() for name in names]
    return any(
        path.is_relative_to(_SUITE) or (name.partition(".")[0] == _SUITE.name and not path.exists())
        for name, path in zip(names, paths, strict=True)
    )
