"""The record of a training run: ``run.json``, ``metrics.jsonl``, checkpoints and the adapter in one folder.

Nothing here needs torch, so a report or a test can read a run without loading a model.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import PipelineError
from pipeline.files import sha256_of, write_json, write_text

SCHEMA_VERSION = 1
COMPLETE_MARK = "complete.json"
"""File in a checkpoint with the digests of its other files, written last."""
_CHECKPOINT_NAME = re.compile(r"checkpoint-[0-9]+")
_ABSENT = object()
VERSIONED_PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of a run."""

    path: Path

    @property
    def record_file(self) -> Path:
        """Configuration, status and results."""
        return self.path / "run.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object per optimizer step."""
        return self.path / "metrics.jsonl"

    @property
    def training_figure(self) -> Path:
        """Plot of the metrics."""
        return self.path / "training.svg"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files, if requested."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of the trainer."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The trained adapter; it exists only once it is complete."""
        return self.path / "adapter"

    def read_record(self) -> dict[str, Any]:
        """The run's record.

        Raises:
            PipelineError: It is missing or damaged.
        """
        try:
            record = json.loads(
                self.record_file.read_text(encoding="utf-8"), object_hook=partial(_Fields, self.record_file)
            )
            if not isinstance(record, dict):
                raise ValueError(f"holds a JSON {_json_kind(record)}, not an object")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PipelineError(f"{self.record_file}: no run here ({error.strerror}); train one first.") from error
        except OSError as error:
            raise PipelineError(
                f"{self.record_file}: cannot be read ({error.strerror}); change its permissions or name another run."
            ) from error
        except (ValueError, RecursionError) as error:
            raise PipelineError(f"{self.record_file}: damaged ({error}); train again in another folder.") from error
        return record

    def read_metrics(self) -> list[dict[str, Any]]:
        """One dict per optimizer step: loss, gradient norm, learning rate, tokens, seconds since the start.

        A last line that was cut off, as by a full disk, is left out.

        Raises:
            PipelineError: Another line is damaged.
        """
        if not self.metrics_file.exists():
            return []
        *lines, rest = self.metrics_file.read_bytes().split(b"\n")
        rows = [self._metrics_row(line, number) for number, line in enumerate(lines, start=1)]
        with suppress(PipelineError):
            rows.append(self._metrics_row(rest, len(lines) + 1))
        return rows

    def _metrics_row(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line.decode("utf-8"))
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise ValueError("no object with a step")
        except (ValueError, RecursionError) as error:
            raise PipelineError(
                f"{self.metrics_file}:{number}: damaged ({error}); delete the line or train again in another folder."
            ) from error
        return row

    def keep_metrics_until(self, step: int) -> float:
        """Drop the rows of steps that a resumed run will repeat; returns the seconds that the remaining ones took."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        write_text(self.metrics_file, "".join(json.dumps(row) + "\n" for row in rows))
        return float(rows[-1]["elapsed_s"]) if rows else 0.0

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that is complete and undamaged; None if there is none."""
        named = (path for path in self.checkpoints.glob("checkpoint-*") if _CHECKPOINT_NAME.fullmatch(path.name))
        found = sorted(named, key=checkpoint_step)
        return next((path for path in reversed(found) if _is_complete(path)), None)

    def mark_complete(self, checkpoint: Path) -> None:
        """Record the digests of a checkpoint's files once all of them are written."""
        digests = {
            file.name: sha256_of(file) for file in checkpoint.iterdir() if file.is_file() and file.name != COMPLETE_MARK
        }
        write_json(checkpoint / COMPLETE_MARK, digests)

    def progress(self) -> str:
        """Where a resumed run will continue, as a sentence for the user."""
        checkpoint = self.last_checkpoint()
        return f"it resumes from {checkpoint.name}." if checkpoint else "it starts over, no checkpoint is complete."

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder.

        Raises:
            PipelineError: Another process is training here, or the folder is not writable.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock").acquire(timeout=0)
        except Timeout:
            raise PipelineError(
                f"{self.path}: another process is training here; wait for it or choose another --output."
            ) from None
        except OSError as error:
            raise PipelineError(
                f"{self.path}: cannot be written ({error.strerror}); choose another --output."
            ) from error
        with lock:
            for partial in (*self.path.glob(".adapter.*"), *self.path.glob(".*.tmp")):  # left by a killed process
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
            yield

    def open(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        """Start or resume a run.

        Args:
            identity: Fields of the record that must match for an earlier run to be resumed.

        Returns:
            The record of the earlier run in this folder; None for a new run.

        Raises:
            PipelineError: The folder holds a run with another identity.
        """
        if not self.record_file.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            return None
        record = self.read_record()
        if fields := differences(identity, {name: record[name] for name in identity if name in record}):
            raise PipelineError(f"{self.path}: holds another run ({fields}); choose another --output or delete it.")
        return record

    def update(self, **fields: Any) -> None:
        """Merge fields into the record atomically."""
        record = self.read_record() if self.record_file.exists() else {"schema_version": SCHEMA_VERSION}
        write_json(self.record_file, {**record, **fields})

    def discard_checkpoints(self) -> None:
        """Delete the checkpoints, once the adapter is saved."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)


class _Fields(dict[str, Any]):
    """An object of the record; asking for a field that it lacks names the file.

    Raises:
        PipelineError: By ``fields[name]``, if there is none of that name.
    """

    def __init__(self, file: Path, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self._file = file

    def __missing__(self, name: str) -> Any:
        raise PipelineError(f"{self._file}: has no {name!r}; restore the file or train again.")


def _json_kind(value: object) -> str:
    return {list: "array", str: "string", type(None): "null", bool: "boolean"}.get(type(value), "number")


def flat_fields(value: object, name: str = "") -> dict[str, object]:
    """The leaves of nested objects by their dotted names, below ``name``."""
    if not isinstance(value, dict):
        return {name: value}
    return {
        field: leaf
        for inner, part in value.items()
        for field, leaf in flat_fields(part, f"{name}.{inner}" if name else inner).items()
    }


def differences(here: object, before: object) -> str:
    """The fields of nested objects that differ, each with its value now and before; empty where none does."""
    now, then = flat_fields(json.loads(json.dumps(here))), flat_fields(before)  # tuples are lists in a record
    names = sorted(name for name in now | then if now.get(name, _ABSENT) != then.get(name, _ABSENT))
    return "; ".join(f"{name} {show_field(now, name)}, was {show_field(then, name)}" for name in names)


def show_field(fields: Mapping[str, object], name: str) -> str:
    """A field's value for a message; digests are shortened."""
    if name not in fields:
        return "absent"
    value = fields[name]
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else json.dumps(value)


def checkpoint_step(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint, from its folder's name."""
    return int(checkpoint.name.rpartition("-")[2])


def _is_complete(checkpoint: Path) -> bool:
    try:
        digests = json.loads((checkpoint / COMPLETE_MARK).read_text(encoding="utf-8"))
        return (
            isinstance(digests, dict)
            and bool(digests)
            and all(sha256_of(checkpoint / name) == digest for name, digest in digests.items())
        )
    except (OSError, ValueError, PipelineError):
        return False


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that affect a run's numbers; None for a missing one."""
    versions: dict[str, str | None] = {}
    for name in VERSIONED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions
