"""JSONL files, plain or gzip: the files at a path, and the objects in their lines.

Problems are collected instead of raised one by one, so that a user can fix a file in one go. The data is valid only if
there are none.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from pipeline.errors import PipelineError

LONGEST_LINE_BYTES = 1 << 20
"""Longer lines are refused before they are read into memory; the targets' longest context is far shorter."""
SHOWN_PROBLEMS = 10
_GZIP_MAGIC = b"\x1f\x8b"
_SUFFIXES = (".jsonl", ".jsonl.gz")


@dataclass
class Problems:
    """The problems found in data: the first few as messages, and the number of all."""

    shown: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, origin: str, message: str) -> None:
        """Add a problem at ``file:line``."""
        self.count += 1
        if len(self.shown) < SHOWN_PROBLEMS:
            self.shown.append(f"{origin}: {message}")

    def raise_any(self) -> None:
        """Raise if there are problems.

        Raises:
            PipelineError: One line for each of the first problems, then the number of the others.
        """
        if not self.count:
            return
        hidden = self.count - len(self.shown)
        raise PipelineError("\n".join(self.shown) + (f"\n... and {hidden} more problems." if hidden else ""))


def data_files(path: Path) -> list[Path]:
    """The data files at ``path``: itself, or every ``*.jsonl`` and ``*.jsonl.gz`` in a folder, sorted by name.

    Raises:
        PipelineError: There are none.
    """
    if not path.is_dir():
        if not path.exists():
            raise PipelineError(
                f"{path}: cannot be read (no such file or folder); name a JSONL file or a folder of them."
            )
        return [path]
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name.endswith(_SUFFIXES))
    if not files:
        raise PipelineError(f"{path}: the folder holds no *.jsonl or *.jsonl.gz file; put the data there.")
    return files


def read_objects(path: Path, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and the object of each non-blank line, in constant memory.

    Args:
        path: A JSONL file; gzip is detected by content, not by name.
        problems: Collects unusable lines; a problem that makes the rest unreadable ends the iteration.
    """
    number = 0
    try:
        with _open(path) as handle:
            while raw := handle.readline(LONGEST_LINE_BYTES + 1):
                number += 1
                origin = f"{path.name}:{number}"
                if len(raw) > LONGEST_LINE_BYTES:
                    return problems.add(origin, f"longer than {LONGEST_LINE_BYTES} bytes; write one example a line.")
                if number == 1 and (message := _byte_order_mark(raw)):
                    return problems.add(origin, message)
                if raw.strip():
                    value = _parse(raw, origin, problems)
                    if value is not None:
                        yield number, value
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        problems.add(f"{path.name}:{number + 1}", f"the gzip data is damaged ({error}); compress the file again.")
    except OSError as error:
        problems.add(str(path), f"cannot be read ({error.strerror}); name a readable JSONL file.")
    return None


def count_lines(path: Path) -> int:
    """Approximate number of lines of a file, for a progress bar; 0 if it cannot be read."""
    try:
        with _open(path) as handle:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: handle.read(1 << 20), b""))
    except (OSError, zlib.error, EOFError):
        return 0


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as handle:
        zipped = handle.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb") if zipped else path.open("rb"))


def _byte_order_mark(raw: bytes) -> str | None:
    if raw.startswith(codecs.BOM_UTF8):
        return "starts with a byte-order mark (BOM); save the file as UTF-8 without one."
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "not UTF-8 but UTF-16; save the file as UTF-8."
    return None


def _parse(raw: bytes, origin: str, problems: Problems) -> dict[str, Any] | None:
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        problems.add(origin, f"not UTF-8 (byte 0x{raw[error.start]:02x} at {error.start + 1}); save the file as UTF-8.")
    except json.JSONDecodeError as error:
        problems.add(origin, f"not JSON ({error.msg} at column {error.colno}); one object per line is expected.")
    except (ValueError, RecursionError) as error:
        problems.add(origin, f"not usable JSON ({error}); one flat object per line is expected.")
    else:
        if isinstance(value, dict):
            return value
        kind = "array" if isinstance(value, list) else type(value).__name__
        problems.add(origin, f"holds a JSON {kind}; one object per line is expected.")
    return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {repeated!r} occurs twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
