"""The wheel that a user installs, built from a copy of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("acceptance", "pipeline", "harness")


@dataclass(frozen=True)
class Built:
    """What was built from a copy of the checkout; the wheel from the source distribution."""

    wheel: Path
    sdist: Path


def build(source: Path, output: Path) -> Built:
    """Build both in empty folders."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    checked([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)])
    (wheel,), (sdist,) = output.glob("*.whl"), output.glob("*.tar.gz")
    return Built(wheel, sdist)


def without_checkout(**variables: str) -> dict[str, str]:
    """The environment without a path to the checkout: pip would take it for the installed project."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **variables}


def checked(command: list[str]) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=without_checkout())
    assert finished.returncode == 0, finished.stdout + finished.stderr


def install(project: Path, folder: Path) -> None:
    """Install a wheel or a project's folder without its requirements."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    checked([*pip, "--target", str(folder), str(project)])


def installed(site: Path | str, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the installed packages in a folder; nothing of it may come from the checkout."""
    environment = without_checkout(PYTHONPATH=str(site), **variables)
    finished = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert str(ROOT / "acceptance") not in finished.stdout + finished.stderr
    return finished
