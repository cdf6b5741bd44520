"""pytest's command line: folders that are values of options, and the folders whose tests were asked for.

pytest decides its root folder before it loads any plugin, and takes ``--option FOLDER`` for a place of tests there.

PYTEST_DONT_REWRITE: ``harness.plugin`` imports this module before it loads it as a plugin.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

_AGAIN = pytest.StashKey[list[str]]()
_NAMES = "folder_options"


class FolderOption(argparse.Action):
    """Stores the value of an option that names a folder; ``--option FOLDER`` works like ``--option=FOLDER``."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store the value, and that the option was given."""
        setattr(namespace, self.dest, values)
        # As text, which pytest-xdist can send.
        setattr(namespace, _NAMES, f"{getattr(namespace, _NAMES, '')} {option}")


def in_one_word(arguments: Iterable[str], options: Collection[str]) -> list[str]:
    """Return the arguments with each of these options and its value as one word."""
    words: list[str] = []
    for argument in arguments:
        if words and words[-1] in options:
            words[-1] += f"={argument}"
        else:
            words.append(argument)
    return words


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Let nothing come of an attempt whose root folder pytest may have taken from the value of an option."""
    given = [os.fspath(argument) for argument in early_config.invocation_params.args]
    words = in_one_word(given, getattr(early_config.known_args_namespace, _NAMES, "").split())
    if words != given:
        early_config.stash[_AGAIN] = words
        args.clear()
        vars(early_config.known_args_namespace).update(vars(parser.parse_known_args(["--noconftest"])))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run pytest with the arguments that it understands from the start."""
    words = config.stash.get(_AGAIN, None)
    return None if words is None else int(pytest.main(words, config.invocation_params.plugins))


def collected_whole_folder(config: pytest.Config, files: Sequence[Path]) -> bool:
    """Return whether any of these files was collected from a folder or package that was asked for as a whole."""
    folders = [Path(os.path.realpath(path)) for argument in config.args for path in _places(config, str(argument))]
    real_files = [Path(os.path.realpath(file)) for file in files]
    return any(file.is_relative_to(folder) for folder in folders if folder.is_dir() for file in real_files)


def _places(config: pytest.Config, argument: str) -> list[str | Path]:
    name = argument.partition("::")[0]
    path = config.invocation_params.dir / name
    if path.exists() or not config.option.pyargs:
        return [path]
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    return [] if spec is None else list(spec.submodule_search_locations or ())
