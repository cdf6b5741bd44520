from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.files import write_text_atomically
from pipeline.errors import PipelineError
from pipeline.files import building_folder, cache_folder, sha256_of, write_json, write_text
from pipeline.model.base_models import base_model_folder, open_for_planning
from pipeline.model.shapes import SHAPES
from tests.support import TINY


@pytest.fixture(params=[0o022, 0o027, 0o077, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    chosen: int = request.param
    before = os.umask(chosen)
    yield chosen
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_umask_decides_who_reads_what_is_written(umask: int, tmp_path: Path) -> None:
    with building_folder(tmp_path / "adapter") as folder:
        (folder / "weights").mkdir()
        private = folder / "weights" / "model.safetensors"
        private.touch(0o600)  # as safetensors writes it
        (folder / "copied.json").touch()
        (folder / "copied.json").chmod(0o644)  # as a copy of another's file
        (folder / "run.sh").touch()
        (folder / "run.sh").chmod(0o700)
        (folder / "link").symlink_to("/proc/version")
        write_json(folder / "export.json", {})
    for file in ("weights/model.safetensors", "copied.json", "export.json"):
        assert mode(tmp_path / "adapter" / file) == 0o666 & ~umask, file
    for path in ("", "weights", "run.sh"):
        assert mode(tmp_path / "adapter" / path) == 0o777 & ~umask, path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]
    assert mode(write_text_atomically(tmp_path / "report.html", "")) == 0o666 & ~umask


def test_a_lone_surrogate_is_written_escaped(tmp_path: Path) -> None:
    write_text(tmp_path / "check.md", "field \ud800")
    assert (tmp_path / "check.md").read_text(encoding="utf-8") == "field \\ud800"
    write_text_atomically(tmp_path / "report.md", "answer \ud800")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == "answer \\ud800"


def test_a_name_that_is_not_utf8_has_a_digest(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    file.write_bytes(b"{}")
    assert len(sha256_of(file)) == 64


def test_the_cache_is_tried_by_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERBOSITY_CACHE", str(tmp_path / "new" / "cache"))
    assert cache_folder() == tmp_path / "new" / "cache"
    assert list(cache_folder().iterdir()) == []
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "cache", tmp_path / "file", Path("/proc/cache")):
        monkeypatch.setenv("VERBOSITY_CACHE", str(place))
        with pytest.raises(PipelineError, match=r"the cache cannot be written \(.+\); set VERBOSITY_CACHE to a folder"):
            cache_folder()


def test_without_a_home_the_cache_needs_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("VERBOSITY_CACHE", raising=False)
    with pytest.raises(PipelineError, match="this user has no home folder for the cache; set VERBOSITY_CACHE"):
        cache_folder()
    monkeypatch.setenv("VERBOSITY_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setattr(Path, "home", lambda: Path("/proc"))
    monkeypatch.delenv("VERBOSITY_CACHE")
    with pytest.raises(PipelineError, match=r"/proc/\.cache/verbosity: the cache cannot be written"):
        cache_folder()


def test_a_prepared_model_is_used_from_a_cache_that_cannot_be_written(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "targets").symlink_to(tiny_folder.parent)
    monkeypatch.setenv("VERBOSITY_CACHE", str(tmp_path))
    monkeypatch.setattr("pipeline.model.base_models.cache_folder", lambda: pytest.fail("tried to write"))
    assert base_model_folder(TINY).name == tiny_folder.name


def test_planning_needs_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.model.base_models.cache_location", refuse)
    with open_for_planning(TINY) as base:
        assert base.shape == SHAPES[TINY.name]


def refuse() -> Path:
    raise PipelineError("no home")
