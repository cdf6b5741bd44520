"""Recorded values ("goldens") in git: read strictly, recorded only from a known and repeatable state."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from harness.files import write_text_atomically
from harness.provenance import DirtyTreeError

FOLDER = "golden"

Compare = Callable[[Any, Any], str | None]


class GoldenError(AssertionError):
    """A golden could not be confirmed."""


class GoldenMissing(GoldenError):
    """Nothing was recorded for this test."""


class GoldenMismatch(GoldenError):
    """The observed value is not the recorded one."""


class GoldenUnfit(GoldenError):
    """The value cannot be recorded: it is not finite, not JSON, or not repeatable."""


class GoldenRecorded(GoldenError):
    """The value was recorded; raised so that a recording run is never green."""


@dataclass(frozen=True)
class GoldenStore:
    """Goldens of one target in one environment.

    Attributes:
        root: Project folder; the files lie in its folder `golden`.
        target: Name of the model.
        environment: Key of the hardware and package versions that the values depend on.
        recording: Whether values are recorded instead of compared.
        provenance: Origin written beside each value; `git_dirty` must be False to record.
    """

    root: Path
    target: str
    environment: str
    recording: bool
    provenance: Mapping[str, object]

    def path(self, module: str, name: str) -> Path:
        """Return the file of a test's golden."""
        folders = [_path_part(part) for part in (self.target, self.environment, module)]
        return self.root.joinpath(FOLDER, *folders, f"{_path_part(name)}.json")

    def check(
        self,
        module: str,
        name: str,
        value: object,
        compare: Compare,
        again: Callable[[], object] | None = None,
        tolerance: object = None,
    ) -> None:
        """Compare `value` with the recorded one, or record it.

        Args:
            module: Name of the test module.
            name: Name of the test, parameters included.
            value: The observed value, JSON-ready.
            compare: Called with recorded and observed; returns None, or a description of the difference.
            again: Produces the value a second time; a recording is refused when `compare` tells them apart.
            tolerance: What `compare` allows, JSON-ready. It is recorded, and a change is a mismatch, so that
                a looser tolerance shows as a change of the golden.

        Raises:
            GoldenMissing: Nothing was recorded.
            GoldenMismatch: The value, the tolerance or the test differs from the recorded one.
            GoldenUnfit: The value must not be recorded.
            GoldenRecorded: The value was recorded now.
            DirtyTreeError: Recording in a working tree that is not a clean commit.
        """
        if self.recording:
            self._record(module, name, value, compare, again, tolerance)
        path = self.path(module, name)
        if not path.is_file():
            raise GoldenMissing(
                f"no golden {self._shown(path)}: run the test with --golden-update, review and commit it"
            )
        document = json.loads(path.read_text(encoding="utf-8"))
        self._require_same_test(document, module, name)
        observed, allowed = _canonical(value, GoldenMismatch), _canonical(tolerance, GoldenMismatch)
        if document["tolerance"] != allowed:
            raise GoldenMismatch(f"tolerance {allowed!r} is not the recorded {document['tolerance']!r}")
        difference = compare(document["value"], observed)
        if difference is not None:
            raise GoldenMismatch(f"{self._shown(path)}: {difference}")

    def _record(
        self,
        module: str,
        name: str,
        value: object,
        compare: Compare,
        again: Callable[[], object] | None,
        tolerance: object,
    ) -> NoReturn:
        if self.provenance.get("git_dirty") is not False:
            raise DirtyTreeError("a golden is recorded from a clean commit only: commit the code first")
        path = self.path(module, name)
        if path.is_file():
            self._require_same_test(json.loads(path.read_text(encoding="utf-8")), module, name)
        recorded = _canonical(value, GoldenUnfit)
        if again is not None:
            difference = compare(recorded, _canonical(again(), GoldenUnfit))
            if difference is not None:
                raise GoldenUnfit(f"two calls gave different values: {difference}")
        document = {
            "value": recorded,
            "tolerance": _canonical(tolerance, GoldenUnfit),
            "provenance": {**self.provenance, "test": f"{module}::{name}"},
        }
        write_text_atomically(path, json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n")
        raise GoldenRecorded(f"recorded {self._shown(path)}: review and commit it, then run again")

    def _require_same_test(self, document: Mapping[str, Any], module: str, name: str) -> None:
        # Sanitising is not one-to-one: two tests whose names map to one file must not share a value.
        owner, test = document["provenance"]["test"], f"{module}::{name}"
        if owner != test:
            raise GoldenMismatch(f"{self._shown(self.path(module, name))} belongs to {owner}, not to {test}")

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _path_part(text: str) -> str:
    part = re.sub(r"[^A-Za-z0-9.=+-]+", "_", text).strip("._")
    if not part:
        raise ValueError(f"no file name can be made of {text!r}")
    return part


def _canonical(value: object, error: type[GoldenError]) -> Any:
    # A round trip gives the observed value the types that the recorded one comes back with.
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (ValueError, TypeError) as cause:
        raise error(f"the value is not finite JSON: {cause}") from cause
