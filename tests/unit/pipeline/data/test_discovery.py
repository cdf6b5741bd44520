"""Which files at a path are data: everything is read, refused or named; and pipes are read once."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.data.formats import find_sources, read_examples, read_questions, stream_examples
from pipeline.data.report import describe_files
from pipeline.data.source import count_lines
from pipeline.errors import PipelineError
from tests.unit.pipeline.data.rows import PAIR, TERSE, VERBOSE, jsonl, write


def test_suffixes_in_capitals_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.JSONL", TERSE)
    (tmp_path / "b.jsonl.GZ").write_bytes(gzip.compress(jsonl(VERBOSE)))
    assert [example.origin for example in read_examples(tmp_path)] == ["a.JSONL:1", "b.jsonl.GZ:1"]


def test_what_is_not_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.jsonl", TERSE, VERBOSE)
    write(tmp_path / ".hidden.jsonl", PAIR)
    (tmp_path / "README.md").write_text("Our data.")
    (tmp_path / ".git").mkdir()
    write(tmp_path / ".git" / "x.jsonl", PAIR)
    (tmp_path / "figures").mkdir()
    assert len(read_examples(tmp_path)) == 2
    assert capsys.readouterr().err == f"data: in {tmp_path.name} not read: .git/, .hidden.jsonl, README.md, figures/\n"


@pytest.mark.parametrize("name", ["b.json", "b.Json", "b.ndjson", "b.csv", "b.parquet", "b.jsonl.bz2", "b.jsonl.part"])
def test_what_looks_like_data_but_is_not_read_is_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", TERSE, VERBOSE)
    write(tmp_path / name, PAIR)
    with pytest.raises(PipelineError) as refused:
        read_examples(tmp_path)
    assert str(refused.value) == (
        f"{name}: looks like data, but only *.jsonl and *.jsonl.gz are read; convert it or move it out of the folder."
    )


def test_a_subfolder_with_data_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", TERSE, VERBOSE)
    (tmp_path / "more" / "deep").mkdir(parents=True)
    write(tmp_path / "more" / "deep" / "b.jsonl", PAIR)
    with pytest.raises(PipelineError, match=r"^more/: subfolders are not read; move its data up or out of the folder"):
        read_examples(tmp_path)


def test_links_to_nothing_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", TERSE, VERBOSE)
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(
        PipelineError, match=r"^b\.jsonl: a link to .*gone\.jsonl, which is not there; repair or remove"
    ):
        read_examples(tmp_path)
    with pytest.raises(PipelineError, match=r"b\.jsonl: a link to .*gone\.jsonl, which is not there"):
        read_examples(tmp_path / "b.jsonl")


def test_links_to_data_are_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").symlink_to(write(tmp_path / "elsewhere", TERSE, VERBOSE))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert len(read_examples(tmp_path / "link")) == 2


def test_a_folder_is_refused_for_all_its_reasons_at_once(tmp_path: Path) -> None:
    write(tmp_path / "a.json", PAIR)
    os.mkfifo(tmp_path / "b.jsonl")
    with pytest.raises(PipelineError) as refused:
        read_examples(tmp_path)
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == ["a.json", "b.jsonl"]


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "feed.jsonl"
    os.mkfifo(pipe)
    content = gzip.compress(jsonl(*[{**PAIR, "prompt": f"Why {number}?"} for number in range(9_000)]))
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    sources = find_sources(pipe)
    writer.join()
    assert len(list(stream_examples(sources))) == 18_000
    (described,) = describe_files(sources)
    assert described["name"] == "feed.jsonl"


@pytest.mark.parametrize("reader", ["read_examples", "read_questions"])
def test_standard_input_is_read_as_pipe_and_as_file(reader: str, tmp_path: Path) -> None:
    rows = [PAIR] if reader == "read_examples" else [{"question": "Why?"}, {"question": "How?"}]
    code = f"from pipeline.data.formats import *; print(len({reader}(Path('/dev/stdin'))))"
    command = [sys.executable, "-c", code]
    piped = subprocess.run(command, input=jsonl(*rows), capture_output=True, check=False)
    assert (piped.stdout, piped.stderr) == (b"2\n", b"")
    with write(tmp_path / "d.jsonl", *rows).open("rb") as handle:
        assert subprocess.run(command, stdin=handle, capture_output=True, check=False).stdout == b"2\n"


def test_a_pipe_for_several_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "feed")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PipelineError, match="feed: a pipe, which only one of 2 processes could read; save the data in"):
        find_sources(tmp_path / "feed")


@pytest.mark.parametrize(("path", "kind"), [("/dev/null", "a device"), ("/dev/zero", "a device")])
def test_devices_are_refused(path: str, kind: str) -> None:
    for read in (read_examples, read_questions):
        with pytest.raises(PipelineError, match=f"{path}: {kind} and not data; name"):
            read(Path(path))


def test_the_same_data_from_a_pipe_has_the_same_digest(tmp_path: Path) -> None:
    digests = set()
    for _ in range(2):
        read, written = os.pipe()
        os.write(written, jsonl(PAIR))
        os.close(written)
        digests.add(describe_files(find_sources(Path(f"/dev/fd/{read}")))[0]["sha256"])
        os.dup(read)  # the next pipe has another number
    assert len(digests) == 1


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(PipelineError, match=rf"^{tmp_path}: cannot be read \(Permission denied\); allow reading it or"):
        find_sources(tmp_path)


def test_a_pipe_that_does_not_fit_on_the_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fill)
    read, written = os.pipe()
    os.close(written)
    with pytest.raises(
        PipelineError, match=rf"^/dev/fd/{read}: cannot be copied to .* \(No space .*; save the data in"
    ):
        find_sources(Path(f"/dev/fd/{read}"))
    os.close(read)


def test_a_device_that_cannot_be_opened_is_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(errno.ENXIO, "No such device or address")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(PipelineError, match=r"^/dev/null: a device and not data; name"):
            find_sources(Path("/dev/null"))


def test_a_file_that_goes_while_it_is_read_is_named(tmp_path: Path) -> None:
    sources = find_sources(write(tmp_path / "a.jsonl", TERSE, VERBOSE))
    sources[0].path.unlink()
    assert count_lines(sources[0].path) == 0
    with pytest.raises(PipelineError, match=r"a\.jsonl: cannot be read \(No such file or directory\); name a readable"):
        list(stream_examples(sources))
