"""The record of a training run: ``run.json``, ``metrics.jsonl``, checkpoints and the adapter in one folder.

Nothing here needs torch, so a report or a test can read a run without loading a model.
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
"""File in a checkpoint with the digests of its other files, written last."""
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
            record: dict[str, Any] = json.loads(self.record_file.read_text(encoding="utf-8"))
        except OSError as error:
            raise PipelineError(f"{self.record_file}: no run here ({error.strerror}); train one first.") from error
        except ValueError as error:
            raise PipelineError(f"{self.record_file}: damaged ({error}); train again in another folder.") from error
        return record

    def read_metrics(self) -> list[dict[str, Any]]:
        """One dict per optimizer step: loss, gradient norm, learning rate, tokens, seconds since the start."""
        if not self.metrics_file.exists():
            return []
        return [json.loads(line) for line in self.metrics_file.read_text(encoding="utf-8").splitlines()]

    def keep_metrics_until(self, step: int) -> float:
        """Drop the rows of steps that a resumed run will repeat; returns the seconds that the remaining ones took."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        write_text(self.metrics_file, "".join(json.dumps(row) + "\n" for row in rows))
        return float(rows[-1]["elapsed_s"]) if rows else 0.0

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that is complete and undamaged; None if there is none."""
        found = sorted(self.checkpoints.glob("checkpoint-*"), key=checkpoint_step)
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
        if differing := [key for key in identity if record.get(key) != json.loads(json.dumps(identity[key]))]:
            raise PipelineError(
                f"{self.path}: holds a run with another {', '.join(differing)}; choose another --output or delete it."
            )
        return record

    def update(self, **fields: Any) -> None:
        """Merge fields into the record atomically."""
        record = self.read_record() if self.record_file.exists() else {"schema_version": SCHEMA_VERSION}
        write_json(self.record_file, {**record, **fields})

    def discard_checkpoints(self) -> None:
        """Delete the checkpoints, once the adapter is saved."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def checkpoint_step(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint, from its folder's name."""
    return int(checkpoint.name.rpartition("-")[2])


def _is_complete(checkpoint: Path) -> bool:
    try:
        digests = json.loads((checkpoint / COMPLETE_MARK).read_text(encoding="utf-8"))
        return bool(digests) and all(sha256_of(checkpoint / name) == digest for name, digest in digests.items())
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
