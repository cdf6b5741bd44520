from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import engine_environments
from tests import pinned_environment as golden_environment
from tests.engine_environments import ENGINES
from tests.pinned_environment import CONVERTERS, OPTIONAL_VARIABLES, build_packages, packages_folder, prepare, run

FREE = 11 * 1024**3


class Machine:
    """Installing without a registry: a package is a file, and pip is asked for what it is told to install."""

    def __init__(self) -> None:
        self.installed: list[tuple[str, ...]] = []
        self.interrupted = False

    def pip(self, environment: Path, *arguments: str, action: str = "install") -> None:
        if action == "download":
            self._download(Path(arguments[arguments.index("--dest") + 1]))
            return
        if "--requirement" in arguments:
            (golden_environment.site_folder(environment) / "pinned.py").touch()
        if self.interrupted:
            raise KeyboardInterrupt
        self.installed.append(arguments)

    def _download(self, folder: Path) -> None:
        converter = folder / "name-1" / "vendor" / CONVERTERS / "convert_hf_to_gguf.py"
        converter.parent.mkdir(parents=True)
        converter.touch()
        with tarfile.open(folder / "name-1.tar.gz", "w:gz") as archive:
            archive.add(folder / "name-1", "name-1")
        shutil.rmtree(folder / "name-1")


@pytest.fixture
def constraints(tmp_path: Path) -> Path:
    file = tmp_path / "golden.txt"
    file.write_text("pinned==1\n")
    os.utime(file, (0, 0))
    return file


@pytest.fixture
def machine(tmp_path: Path, constraints: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine, create = Machine(), venv.create

    def without_pip(folder: Path, **options: Any) -> None:
        create(folder, **{**options, "with_pip": False})

    monkeypatch.setenv("VERBOSITY_CACHE", str(tmp_path / "cache"))
    for variable in OPTIONAL_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(golden_environment, "_pip", machine.pip)
    monkeypatch.setattr(venv, "create", without_pip)
    monkeypatch.setattr(golden_environment, "CONSTRAINTS", constraints)
    monkeypatch.setattr(golden_environment, "ENVIRONMENT", tmp_path / "clone" / ".venv-golden")
    disk(monkeypatch, FREE)
    return machine


def disk(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free_bytes))


def test_packages_are_named_by_the_constraints_and_the_python(constraints: Path) -> None:
    before = packages_folder(constraints, "cpython-311")
    assert packages_folder(constraints, "cpython-311") == before
    assert packages_folder(constraints, "cpython-312") != before
    constraints.write_text("pinned==2\n")
    assert packages_folder(constraints, "cpython-311") != before


def test_clones_share_the_packages(machine: Machine, constraints: Path, tmp_path: Path) -> None:
    for clone in ("one", "two"):
        prepare(tmp_path / clone / ".venv-golden", constraints)
        python = tmp_path / clone / ".venv-golden" / "bin" / "python"
        command = [str(python), "-c", "import pinned; print(pinned.__file__)"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert Path(found).is_relative_to(build_packages(constraints))
    assert ["--requirement" in arguments for arguments in machine.installed] == [True, False, False]


def test_an_environment_is_made_again_only_when_its_sources_changed(
    machine: Machine, constraints: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        prepare(tmp_path / ".venv-golden", constraints)
    assert len(machine.installed) == 2
    constraints.write_text("pinned==2\n")
    prepare(tmp_path / ".venv-golden", constraints)
    assert len(machine.installed) == 4


def test_an_interrupted_build_is_never_used(machine: Machine, constraints: Path) -> None:
    final = packages_folder(constraints, golden_environment.this_python())
    machine.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        build_packages(constraints)
    assert not final.exists()
    killed = final.parent / f".{final.name}.killed"
    killed.mkdir()
    machine.interrupted = False
    assert build_packages(constraints) == final
    assert not killed.exists()


@pytest.mark.parametrize(("allowed", "status"), [(None, 1), ("0", 1), ("1", 0)])
def test_without_room_nothing_runs_and_nothing_is_green(
    allowed: str | None,
    status: int,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    disk(monkeypatch, 9 * 1024**3)
    if allowed is not None:
        monkeypatch.setenv(OPTIONAL_VARIABLES["golden"], allowed)
    assert run(["-c", "print('ran')"]) == status
    printed = capfd.readouterr()
    assert "NOT RUN on the golden pins" in printed.err
    assert "9.0 GiB free" in printed.err
    assert "ran" not in printed.out
    assert machine.installed == []


def test_built_packages_need_no_room(
    machine: Machine, constraints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_packages(constraints)
    disk(monkeypatch, 0)
    prepare(tmp_path / ".venv-golden", constraints)


def test_the_torch_that_runs_is_named_and_the_status_passed_on(
    machine: Machine, constraints: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    site = golden_environment.site_folder(build_packages(constraints))
    (site / "torch.py").write_text("__version__ = '2.7.1+cu126'\n")
    assert run(["-c", "import sys; print('ran'); sys.exit(3)"]) == 3
    assert capfd.readouterr().out.splitlines() == ["golden pins: torch 2.7.1+cu126", "ran"]


@pytest.fixture
def engine_pins(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "constraints"
    folder.mkdir()
    for engine in ENGINES:
        (folder / f"{engine}.txt").write_text(f"{engine}==1\n")
    monkeypatch.setattr(engine_environments, "ROOT", tmp_path)
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_tests_find_the_engine_that_was_built(
    engine: str, engine_pins: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = f"import os; print(os.environ['{engine_environments.variable(engine)}'])"
    assert engine_environments.run(engine, ["-c", code]) == 0
    packages = build_packages(engine_pins / f"{engine}.txt")
    assert capfd.readouterr().out.splitlines() == [f"{engine}: {packages}", str(packages)]
    assert packages.name.startswith(f"{engine}-")
    assert (packages / CONVERTERS / "convert_hf_to_gguf.py").exists() == (engine == "llama")


@pytest.mark.parametrize("status", [1, 0])
def test_without_room_for_an_engine_nothing_runs_and_nothing_is_green(
    status: int, engine_pins: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    disk(monkeypatch, 4 * 1024**3)
    if status == 0:
        monkeypatch.setenv("VERBOSITY_VLLM_OPTIONAL", "1")
    assert engine_environments.run("vllm", ["-c", "print('ran')"]) == status
    printed = capfd.readouterr()
    assert "NOT RUN with vllm" in printed.err
    assert "4.0 GiB free, and building vllm.txt takes 6" in printed.err
    assert "VERBOSITY_VLLM_OPTIONAL=1 to go on" in printed.err
    assert "ran" not in printed.out


def test_it_starts_on_a_bare_python() -> None:
    command = [sys.executable, "-S", "-c", "import tests.pinned_environment"]
    subprocess.run(command, check=True, cwd=golden_environment.ROOT)
