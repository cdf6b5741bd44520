"""The record of a training run: ``run.json``, ``metrics.jsonl``, checkpoints and the adapter in one folder.

Nothing here needs torch, so a report or a test reads a run without loading a model.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.files import write_json

SCHEMA_VERSION = 1
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
        """One dict per optimizer step: ``step``, ``loss``, ``grad_norm``, ``learning_rate``, ``elapsed_s``."""
        if not self.metrics_file.exists():
            return []
        return [json.loads(line) for line in self.metrics_file.read_text(encoding="utf-8").splitlines()]

    def keep_metrics_until(self, step: int) -> float:
        """Drop the rows of steps that a resumed run is going to make again; returns the seconds that the rest took."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        temporary = self.metrics_file.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        os.replace(temporary, self.metrics_file)
        return float(rows[-1]["elapsed_s"]) if rows else 0.0

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written to its end."""
        whole = [path.parent for path in self.checkpoints.glob("checkpoint-*/complete.json")]
        return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

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


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that decide a run's numbers; None where one is missing."""
    versions: dict[str, str | None] = {}
    for name in VERSIONED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions
