"""Options that name a folder work with one outside the checkout, in both spellings, wherever pytest is started."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.arguments import in_one_word
from tests.forked import run_pytest
from tests.unit.harness.conftest import run_in_processes

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

ROOT = Path(__file__).resolve().parents[3]
SPELLINGS = pytest.mark.parametrize("separator", [" ", "="])


def spelled(option: str, separator: str, folder: Path) -> list[str]:
    return [option, str(folder)] if separator == " " else [f"{option}={folder}"]


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An existing folder that is not below any project, with settings of its own."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    return folder


def test_only_options_of_folders_are_joined_with_their_values() -> None:
    given = ["-m", "gpu", "--run-dir", "a b", "tests", "--run-dir=c", "--run-dir"]
    assert in_one_word(given, {"--run-dir"}) == ["-m", "gpu", "--run-dir=a b", "tests", "--run-dir=c", "--run-dir"]
    assert in_one_word(given, ()) == given


@SPELLINGS
@pytest.mark.parametrize(
    "more",
    [
        pytest.param((), id="alone"),
        pytest.param(("tests",), id="with a place", marks=pytest.mark.slow),
        pytest.param(("-n", "1"), id="with workers", marks=pytest.mark.slow),
    ],
)
def test_results_go_into_an_existing_folder_outside(
    separator: str, more: tuple[str, ...], outside: Path, project: Project
) -> None:
    # Without these settings there is no such module and no such mark.
    project.pytester.makeini("[pytest]\npythonpath = lib\nmarkers = ours\naddopts = --strict-markers\n")
    project.pytester.mkdir("lib").joinpath("own_module.py").write_text("")
    project.extra = "import own_module\n\n@pytest.mark.ours\ndef test_other():\n    pass\n"
    result = project.run_in_processes(*more, *spelled("--acceptance-dir", separator, outside))
    assert result.ret == 0, result.stdout.str()
    document = json.loads((outside / "acceptance.json").read_text(encoding="utf-8"))
    assert document["decision"] == "ACCEPTED"
    assert not project.results.exists()


@pytest.mark.slow
def test_the_options_of_the_acceptance_take_folders_outside(outside: Path) -> None:
    # A folder that is taken for a place of tests ends the run by its settings, in whichever spelling.
    arguments = ["-q", "-n", "0", "-m", "embedded", "--collect-only"]
    for option in ("--run-dir", "--base-model", "--acceptance-dir"):
        for separator in (" ", "="):
            arguments += spelled(option, separator, outside)
    finished = run_pytest(*arguments, "--target", "tiny-mistral", "-o", "testpaths=acceptance", cwd=ROOT)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "acceptance/test_server.py::test_server_starts[tiny-mistral]" in finished.stdout


def test_a_suite_that_is_named_as_a_package_needs_every_criterion(project: Project) -> None:
    del project.bodies["style.generation_speed"]
    project.write()
    project.pytester.makeini("[pytest]\npythonpath = lib\n")
    package = project.pytester.mkdir("lib") / "checks"
    shutil.move(project.pytester.path / "tests", package)
    (package / "__init__.py").touch()
    result = run_in_processes(project.pytester, "--pyargs", "checks")
    assert result.ret == 4
    assert "small: style.generation_speed" in result.stderr.str()
