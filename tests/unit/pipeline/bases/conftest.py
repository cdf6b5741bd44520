"""Each tiny base with a run trained on it, made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.run_folder import RunFolder
from pipeline.target_file import TARGET_FILE
from tests.tiny_bases import TINY_BASES, write_pairs, write_tiny_base

SETTINGS = """\
name = "own-{name}"
device = "cpu"
learned = false
{template}
[lean]
learning_rate = 2e-2
micro_batch_size = 2
accumulation_steps = 1
"""


@dataclass(frozen=True)
class Trained:
    """A base's folder and a run of eight optimizer steps on it."""

    name: str
    folder: Path
    run: RunFolder
    data: Path


@pytest.fixture(scope="session")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a tiny base with its ``target.toml``, once; skips what the installed transformers does not know."""

    @cache
    def write(name: str) -> Path | None:
        folder = tmp_path_factory.mktemp("bases") / name
        try:
            write_tiny_base(name, folder)
        except (KeyError, ValueError):
            return None
        template = 'template = "plain"' if TINY_BASES[name].template is None else ""
        (folder / TARGET_FILE).write_text(SETTINGS.format(name=name, template=template))
        return folder

    def get(name: str) -> Path:
        folder = write(name)
        if folder is None:
            pytest.skip(f"the installed transformers has no {name}")
        return folder

    return get


@pytest.fixture(scope="session")
def trained_on(base_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Trains on a base by the command line, once."""
    data = write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")

    @cache
    def train(name: str) -> Trained:
        output = tmp_path_factory.mktemp("runs") / name
        assert main(["train", "--base-model", str(base_of(name)), "--data", str(data), "--output", str(output)]) == 0
        return Trained(name, base_of(name), RunFolder(output), data)

    return train


FAST = ("qwen3", "gemma2", "phi3")
"""Those that differ most from Mistral; the others are slow tests."""
ARCHITECTURES = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in TINY_BASES]


@pytest.fixture(params=ARCHITECTURES)
def base(request: pytest.FixtureRequest, base_of: Callable[[str], Path]) -> Path:
    return base_of(request.param)


@pytest.fixture(params=ARCHITECTURES)
def trained(request: pytest.FixtureRequest, trained_on: Callable[[str], Trained]) -> Trained:
    return trained_on(request.param)
