"""Provenance, atomic files and the snapshot's own file format."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import pytest

from harness.files import write_text_atomically
from harness.provenance import DirtyTreeError, changed_files, collect, require_clean
from harness.snapshots.extension import differs_at_all, path_part, read_snapshot, to_plain, to_text


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


def test_text_is_strict_json_that_reads_back_and_changes_line_by_line() -> None:
    value = {"b": [1, 2.5], "a": {"top5": [[[7, -0.5], [8, -1.0]], [[9, 0.0]]]}, "c": [{"x": None}], "d": [], "e": {}}
    text = to_text(value)
    assert json.loads(text) == value
    lines = [line.strip() for line in text.splitlines()]
    assert {'"b": [1, 2.5],', "[[7, -0.5], [8, -1.0]],", "[[9, 0.0]]"} <= set(lines)
    assert text == to_text(dict(reversed(value.items())))


@pytest.mark.parametrize("value", [math.nan, {"loss": [1.0, math.inf]}, object(), {1, 2}])
def test_what_is_not_finite_json_has_no_text(value: object) -> None:
    with pytest.raises(ValueError, match="not finite JSON"):
        to_text(value)


def test_plain_values_are_as_they_read_back() -> None:
    assert to_plain({"ids": (1, 2)}) == {"ids": [1, 2]}


@pytest.mark.parametrize(("recorded", "observed"), [(1, True), (1, 1.0), ([1], [1, 1]), ({"a": 1}, {})])
def test_exact_comparison_tells_types_and_lengths_apart(recorded: object, observed: object) -> None:
    assert differs_at_all(recorded, observed) is not None
    assert differs_at_all(recorded, recorded) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "no provenance"),
        ('{"value": 1}', "no provenance"),
        ('{"value": 1, "provenance": {"test": "m::other"}}', "belongs to m::other"),
        ('{"value": 1, "provenance": {}}', "belongs to None"),
    ],
)
def test_a_broken_file_is_named_as_such(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_snapshot(text, "m::test_x")


def test_path_parts_cannot_leave_their_folder() -> None:
    assert path_part("../../etc") == "etc"
    assert path_part("test_x[a/b c]") == "test_x_a_b_c"
    with pytest.raises(ValueError, match="no file name"):
        path_part("..")


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
