"""Recording and comparing goldens, provenance, atomic files."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.files import write_text_atomically
from harness.golden.store import (
    GoldenMismatch,
    GoldenMissing,
    GoldenRecorded,
    GoldenStore,
    GoldenUnfit,
)
from harness.provenance import DirtyTreeError, changed_files, collect, require_clean

if TYPE_CHECKING:
    from tests.unit.harness.conftest import Project

SPEED = "style.generation_speed"


def differ(recorded: object, observed: object) -> str | None:
    return None if recorded == observed else f"{recorded} became {observed}"


def store(root: Path, recording: bool = False, dirty: bool | None = False, target: str = "small") -> GoldenStore:
    return GoldenStore(root, target, "cpu", recording, {"git_commit": "abc", "git_dirty": dirty})


def record(root: Path, value: object, name: str = "test_x[small]", **others: Any) -> None:
    with pytest.raises(GoldenRecorded, match="review and commit"):
        store(root, recording=True).check("test_module", name, value, differ, **others)


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.invalid")
    subprocess.run(["git", *identity, "-C", str(root), *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    tmp_path.joinpath("code.py").write_text("pass\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_missing_golden_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(GoldenMissing, match="--golden-update"):
        store(tmp_path).check("test_module", "test_x", 1, differ)
    assert list(tmp_path.iterdir()) == []


def test_recorded_golden_is_compared(tmp_path: Path) -> None:
    record(tmp_path, (1, 2), again=lambda: (1, 2))
    [path] = tmp_path.rglob("*.json")
    assert path.relative_to(tmp_path).as_posix() == "golden/small/cpu/test_module/test_x_small.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    assert sorted(document) == ["provenance", "tolerance", "value"]
    assert document["provenance"]["git_commit"] == "abc"
    store(tmp_path).check("test_module", "test_x[small]", (1, 2), differ)
    with pytest.raises(GoldenMismatch, match=r"\[1, 2\] became \[1, 3\]"):
        store(tmp_path).check("test_module", "test_x[small]", (1, 3), differ)


@pytest.mark.parametrize("value", [math.nan, {"loss": [1.0, math.inf]}, object()])
def test_unfit_value_is_neither_recorded_nor_accepted(tmp_path: Path, value: object) -> None:
    with pytest.raises(GoldenUnfit):
        store(tmp_path, recording=True).check("m", "test_x", value, differ)
    assert not list(tmp_path.rglob("*.json"))
    record(tmp_path, 1.0)
    with pytest.raises(GoldenMismatch):
        store(tmp_path).check("test_module", "test_x[small]", value, lambda recorded, observed: None)


def test_unrepeatable_value_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(GoldenUnfit, match="1 became 2"):
        store(tmp_path, recording=True).check("m", "test_x", 1, differ, lambda: 2)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("dirty", [True, None])
def test_dirty_tree_is_not_recorded(tmp_path: Path, dirty: bool | None) -> None:
    with pytest.raises(DirtyTreeError):
        store(tmp_path, recording=True, dirty=dirty).check("m", "test_x", 1, differ)
    assert not list(tmp_path.rglob("*.json"))


def test_changed_tolerance_is_a_mismatch(tmp_path: Path) -> None:
    record(tmp_path, 1.0, tolerance={"max_abs": 0.1})
    check = store(tmp_path).check
    check("test_module", "test_x[small]", 1.0, differ, tolerance={"max_abs": 0.1})
    with pytest.raises(GoldenMismatch, match="tolerance"):
        check("test_module", "test_x[small]", 1.0, differ, tolerance={"max_abs": 0.5})


def test_names_that_map_to_one_file_do_not_share_a_value(tmp_path: Path) -> None:
    record(tmp_path, 1, name="test_x[a/b]")
    with pytest.raises(GoldenMismatch, match="belongs to"):
        store(tmp_path).check("test_module", "test_x[a:b]", 1, differ)
    with pytest.raises(GoldenMismatch, match="belongs to"):
        store(tmp_path, recording=True).check("test_module", "test_x[a:b]", 1, differ)


def test_path_stays_inside_the_store(tmp_path: Path) -> None:
    path = store(tmp_path, target="../../etc").path("a/../b", "x/../../y")
    assert path.parent.parent.parent.parent == tmp_path / "golden"
    assert ".." not in path.parts
    with pytest.raises(ValueError, match="no file name"):
        store(tmp_path, target="..").path("m", "n")


def test_provenance_of_a_repository(repository: Path) -> None:
    require_clean(repository)
    origin = collect(repository)
    assert len(str(origin["git_commit"])) == 40
    assert origin["git_dirty"] is False
    repository.joinpath("new.py").write_text("pass\n")
    repository.joinpath("code.py").write_text("changed\n")
    assert changed_files(repository) == ["code.py", "new.py"]
    assert collect(repository)["git_dirty"] is True
    with pytest.raises(DirtyTreeError, match=r"code\.py, new\.py.*ommit"):
        require_clean(repository)


def test_provenance_outside_git_and_without_names(tmp_path: Path) -> None:
    origin = collect(tmp_path)
    assert (origin["git_commit"], origin["git_dirty"]) == (None, None)
    packages = origin["packages"]
    assert isinstance(packages, dict)
    assert packages["pytest"] == pytest.__version__
    text = json.dumps(origin)
    assert str(tmp_path) not in text
    assert os.uname().nodename not in text
    with pytest.raises(DirtyTreeError, match="no git commit"):
        require_clean(tmp_path)


def test_missing_package_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.provenance.PACKAGES", ("absent-package",))
    assert collect(tmp_path)["packages"] == {"absent-package": None}


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text_atomically(tmp_path / "folder" / "file", "old")

    def refuse(source: str, target: Path) -> None:
        raise OSError("full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="full"):
        write_text_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def golden_project(project: Project) -> None:
    project.arguments[SPEED] = ", golden"
    project.bodies[SPEED] += "\ngolden.check([1], lambda a, b: None if a == b else 'differs', lambda: [1])"
    project.conftest = "def pytest_golden_environment(config):\n    return 'cpu'\n"
    project.write()
    project.pytester.path.joinpath(".gitignore").write_text("acceptance-results\n__pycache__\n")
    git(project.pytester.path, "init")
    git(project.pytester.path, "add", ".")
    git(project.pytester.path, "commit", "-m", "first")


def test_golden_life_cycle(project: Project) -> None:
    golden_project(project)
    assert project.run().ret == 10
    assert project.criterion(SPEED)["reason"].startswith("GoldenMissing: ")
    assert project.run("--golden-update").ret == 10
    assert project.criterion(SPEED)["reason"].startswith("GoldenRecorded: ")
    folder = project.pytester.path / "golden/small/cpu/test_gate"
    [path] = folder.iterdir()
    assert path.name == "test_style_generation_speed_small.json"
    assert json.loads(path.read_text())["provenance"]["git_dirty"] is False
    assert project.run().ret == 0
    refused = project.run("--golden-update")
    assert refused.ret == 4
    assert path.name in refused.stderr.str()


def test_golden_needs_an_environment(project: Project) -> None:
    project.arguments[SPEED] = ", golden"
    result = project.run()
    assert result.ret == 11
    assert "pytest_golden_environment" in project.criterion(SPEED)["reason"]


def test_golden_needs_a_subject(project: Project) -> None:
    project.extra = "def test_other(golden):\n    pass\n"
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*a golden needs a model*"])
