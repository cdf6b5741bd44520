"""The record of a training run: ``run.json``, ``metrics.jsonl``, checkpoints and the adapter in one folder.

Nothing here needs torch, so a report or a test reads a run without loading a model.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import PipelineError
from pipeline.files import sha256_of, write_json, write_text

SCHEMA_VERSION = 1
COMPLETE_MARK = "complete.json"
"""In a checkpoint: the digests of its files, written last."""
VERSIONED_PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run keeps what."""

    path: Path

    @property
    def record_file(self) -> Path:
        """Configuration, status and figures."""
        return self.path / "run.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object per optimizer step."""
        return self.path / "metrics.jsonl"

    @property
    def training_figure(self) -> Path:
        """The metrics, drawn."""
        return self.path / "training.svg"

    @property
    def tensorboard(self) -> Path:
        """Event files, where they were asked for."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of the trainer."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The trained adapter, present only when it is whole."""
        return self.path / "adapter"

    def read_record(self) -> dict[str, Any]:
        """The run's record.

        Raises:
            PipelineError: There is none, or it is damaged.
        """
        try:
            record: dict[str, Any] = json.loads(self.record_file.read_text(encoding="utf-8"))
        except OSError as error:
            raise PipelineError(f"{self.record_file}: no run here ({error.strerror}); train one first.") from error
        except ValueError as error:
            raise PipelineError(f"{self.record_file}: damaged ({error}); train again in another folder.") from error
        return record

    def read_metrics(self) -> list[dict[str, Any]]:
        """One dict per optimizer step: its loss, gradient norm, learning rate, tokens, seconds since the start."""
        if not self.metrics_file.exists():
            return []
        return [json.loads(line) for line in self.metrics_file.read_text(encoding="utf-8").splitlines()]

    def keep_metrics_until(self, step: int) -> float:
        """Drop the rows of steps that a resumed run is going to make again; returns the seconds that the rest took."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        write_text(self.metrics_file, "".join(json.dumps(row) + "\n" for row in rows))
        return float(rows[-1]["elapsed_s"]) if rows else 0.0

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that is as it was when it was written to its end."""
        found = sorted(self.checkpoints.glob("checkpoint-*"), key=checkpoint_step)
        return next((path for path in reversed(found) if _is_complete(path)), None)

    def mark_whole(self, checkpoint: Path) -> None:
        """Write down the digests of a checkpoint's files, once it has them all."""
        digests = {
            file.name: sha256_of(file) for file in checkpoint.iterdir() if file.is_file() and file.name != COMPLETE_MARK
        }
        write_json(checkpoint / COMPLETE_MARK, digests)

    def progress(self) -> str:
        """From where a run that is taken up again goes on, in words."""
        checkpoint = self.last_checkpoint()
        return f"it goes on from {checkpoint.name}." if checkpoint else "it begins anew, no checkpoint is whole."

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder.

        Raises:
            PipelineError: Another one does already, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock").acquire(timeout=0)
        except Timeout:
            raise PipelineError(
                f"{self.path}: another process trains here; wait for it or choose another --output."
            ) from None
        except OSError as error:
            raise PipelineError(
                f"{self.path}: cannot be written ({error.strerror}); choose another --output."
            ) from error
        with lock:
            for half in (*self.path.glob(".adapter.*"), *self.path.glob(".*.tmp")):  # what a killed process left
                shutil.rmtree(half) if half.is_dir() else half.unlink()
            yield

    def open(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        """Start or take up a run.

        Args:
            identity: What must be equal for a run to go on in this folder.

        Returns:
            The record of the earlier run in this folder, or None if it is new.

        Raises:
            PipelineError: The folder holds a run of something else.
        """
        if not self.record_file.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            return None
        record = self.read_record()
        if differing := [key for key in identity if record.get(key) != json.loads(json.dumps(identity[key]))]:
            raise PipelineError(
                f"{self.path}: holds a run with another {', '.join(differing)}; choose another --output or delete it."
            )
        return record

    def update(self, **fields: Any) -> None:
        """Merge fields into the record, atomically."""
        record = self.read_record() if self.record_file.exists() else {"schema_version": SCHEMA_VERSION}
        write_json(self.record_file, {**record, **fields})

    def discard_checkpoints(self) -> None:
        """Free the disk once the adapter is saved."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def checkpoint_step(checkpoint: Path) -> int:
    """The optimizer step after which the trainer wrote a checkpoint, from its folder's name."""
    return int(checkpoint.name.rpartition("-")[2])


def _is_complete(checkpoint: Path) -> bool:
    try:
        digests = json.loads((checkpoint / COMPLETE_MARK).read_text(encoding="utf-8"))
        return bool(digests) and all(sha256_of(checkpoint / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, PipelineError):
        return False


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that decide a run's numbers; None where one is missing."""
    versions: dict[str, str | None] = {}
    for name in VERSIONED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions
