"""Which files at a path are data: everything there is read, refused or named, and a pipe is read once."""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from pipeline.data.source import Problems
from pipeline.errors import PipelineError

_SUFFIXES = (".jsonl", ".jsonl.gz")
_DATA_SUFFIXES = frozenset(
    {".csv", ".tsv", ".ndjson", ".parquet", ".arrow", ".feather", ".xlsx", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z"}
    | {".tar", ".tgz"}
)
"""What suggests data that is not read; so does ".json" anywhere in a name."""


def data_files(path: Path) -> list[Path]:
    """The data files at ``path``: itself, or every ``*.jsonl`` and ``*.jsonl.gz`` in a folder, sorted by name.

    Case does not matter. Dot files and what does not look like data are named on standard error.

    Raises:
        PipelineError: There are none, or something that looks like data would be left out.
    """
    if not path.is_dir():
        return [data_file(path)]
    files: list[Path] = []
    others: list[str] = []
    problems = Problems()
    for entry in _entries(path):
        name = entry.name + "/" * entry.is_dir()
        if entry.name.startswith("."):
            others.append(name)
        elif reason := _refusal(entry):
            problems.add(name, reason)
        elif entry.name.lower().endswith(_SUFFIXES):
            files.append(entry)
        else:
            others.append(name)
    problems.raise_any()
    if others:
        print(f"data: in {path.name} not read: {', '.join(others)}", file=sys.stderr)
    if not files:
        raise PipelineError(f"{path}: the folder holds no *.jsonl or *.jsonl.gz file; put the data there.")
    return files


def data_file(path: Path) -> Path:
    """The file at ``path`` as one that can be read twice: itself, or a copy of what came through a pipe.

    Raises:
        PipelineError: There is no file, or it is a device, a terminal or a folder.
    """
    remedy = "name a JSONL file, a folder of them or a pipe."
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink():
            raise PipelineError(f"{path}: {_dangling(path)}") from None
        raise PipelineError(f"{path}: cannot be read ({(error.strerror or '').lower()}); {remedy}") from None
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return _copy(path)
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a terminal" if _is_terminal(path) else "a device"
        raise PipelineError(f"{path}: {kind} and not data; {remedy}")
    # The number of a descriptor says nothing about the data, and some systems reopen it where it was left.
    return _copy(path) if path.parts[:2] in (("/", "dev"), ("/", "proc")) else path


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise PipelineError(f"{folder}: cannot be read ({error.strerror}); allow reading it or name another.") from None


def _refusal(entry: Path) -> str | None:
    """Why an entry must not be left out, nor read; None if it may be."""
    if entry.is_symlink() and not entry.exists():
        return _dangling(entry)
    if entry.is_dir():
        if any(_looks_like_data(file) for file in entry.rglob("*")):
            return "subfolders are not read; move its data up or out of the folder."
        return None
    if not entry.is_file():
        return "a pipe or device; a folder is read from files, so name it alone."
    if _looks_like_data(entry) and not entry.name.lower().endswith(_SUFFIXES):
        return "looks like data, but only *.jsonl and *.jsonl.gz are read; convert it or move it out of the folder."
    return None


def _looks_like_data(entry: Path) -> bool:
    return ".json" in entry.name.lower() or entry.suffix.lower() in _DATA_SUFFIXES


def _dangling(link: Path) -> str:
    return f"a link to {os.readlink(link)}, which is not there; repair or remove the link."


def _is_terminal(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.isatty(descriptor)
    finally:
        os.close(descriptor)


def _copy(path: Path) -> Path:
    """Read a pipe to its end into a temporary file, which is deleted when the process ends."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise PipelineError(
            f"{path}: a pipe, which only one of {processes} processes could read; save the data in a file."
        )
    folder = Path(tempfile.mkdtemp(prefix="verbosity-data-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / ("stdin" if path.parts[:2] in (("/", "dev"), ("/", "proc")) else path.name)
    try:
        with path.open("rb") as pipe, copy.open("wb") as file:
            shutil.copyfileobj(pipe, file, 1 << 20)
    except OSError as error:
        raise PipelineError(
            f"{path}: cannot be copied to {folder} ({error.strerror}); save the data in a file."
        ) from None
    return copy
