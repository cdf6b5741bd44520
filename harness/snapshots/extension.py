"""A syrupy extension for snapshots: one strict JSON file per test, compared by a function and never deleted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from syrupy.data import SnapshotCollection, SnapshotCollections
from syrupy.extensions.json import JSONSnapshotExtension
from syrupy.location import PyTestLocation
from syrupy.types import SerializableData, SnapshotIndex

from harness.files import write_text_atomically

FOLDER = "golden"
KEYS = frozenset({"value", "provenance"})

Compare = Callable[[Any, Any], str | None]
"""Called with the recorded and the observed value; returns None, or how they differ."""


class SnapshotFile(JSONSnapshotExtension):
    """Stores the snapshot of a test as ``<folder>/<test module>/<test name>.json``.

    syrupy fails a run that leaves a snapshot unused and deletes such snapshots when it updates; it would
    treat the snapshots of another machine, of a module skipped at import or of an absent GPU as leftovers. So this
    extension discovers nothing and deletes nothing; another test checks that every file belongs to a test.

    Attributes:
        folder: Folder of one target in one environment; set by ``in_folder``.
        compare: Decides whether the observed value matches the snapshot.
        difference: The last result of ``compare``, or what is wrong with the file.
    """

    folder: Path

    def __init__(self) -> None:
        """Compare exactly by default."""
        self.compare: Compare = differs_at_all
        self.difference: str | None = None

    @classmethod
    def in_folder(cls, folder: Path) -> type[SnapshotFile]:
        """Return this extension for the snapshots of one target in one environment."""
        return cast("type[SnapshotFile]", type(cls.__name__, (cls,), {"folder": folder}))

    def serialize(self, data: SerializableData, **_filters: Any) -> str:
        """Return ``data`` as JSON text.

        Raises:
            ValueError: A number in it is not finite, or it is not JSON.
        """
        return to_text(data)

    def matches(self, *, serialized_data: SerializableData, snapshot_data: SerializableData) -> bool:
        """Compare the values; of the provenance, only the test's name must agree."""
        observed = json.loads(serialized_data)
        try:
            recorded = read_snapshot(snapshot_data, observed["provenance"]["test"])
        except ValueError as error:
            self.difference = str(error)
            return False
        if recorded.keys() != KEYS:
            self.difference = f"the snapshot holds {', '.join(sorted(recorded))}: record it again"
        else:
            self.difference = self.compare(recorded["value"], observed["value"])
        return self.difference is None

    @classmethod
    def dirname(cls, *, test_location: PyTestLocation) -> str:
        """Return the folder of the test's module."""
        return str(cls.folder / test_location.basename)

    @classmethod
    def get_file_basename(cls, *, test_location: PyTestLocation, index: SnapshotIndex) -> str:
        """Return the file name without brackets, which shells and links would have to quote."""
        return path_part(test_location.snapshot_name)

    @classmethod
    def matches_test_location(cls, *, test_location: PyTestLocation, snapshot_location: str) -> bool:
        """Return whether the file is the test's own."""
        return snapshot_location == cls.get_location(test_location=test_location, index=0)

    @classmethod
    def write_snapshot_collection(
        cls, *, snapshot_collection: SnapshotCollection, name_order: dict[str, int] | None = None
    ) -> None:
        """Write the file in one step."""
        [snapshot] = snapshot_collection
        write_text_atomically(Path(snapshot_collection.location), str(snapshot.data))

    def discover_snapshots(
        self, *, test_location: PyTestLocation, ignore_extensions: list[str] | None = None
    ) -> SnapshotCollections:
        """Return nothing, so that no snapshot ever counts as unused."""
        return SnapshotCollections()

    def delete_snapshots(self, *, snapshot_location: str, snapshot_names: set[str]) -> None:
        """Refuse; a snapshot is deleted in git, by hand."""
        raise NotImplementedError(f"a snapshot is never deleted by a run: {snapshot_location}")


def test_label(location: PyTestLocation) -> str:
    """Return the name that binds a snapshot to its test: ``module::test``, parameters and class included."""
    return f"{location.basename}::{location.snapshot_name}"


def path_part(text: str) -> str:
    """Return ``text`` as one part of a path, safe in shells, links and file systems.

    Raises:
        ValueError: No character of it is allowed in a file name.
    """
    part = re.sub(r"[^A-Za-z0-9.=+-]+", "_", text).strip("._")
    if not part:
        raise ValueError(f"no file name can be made of {text!r}: no character of it is allowed")
    return part


def read_snapshot(text: str, test: str) -> Mapping[str, Any]:
    """Read a snapshot file.

    Args:
        text: Its content.
        test: The test it must belong to, as ``test_label`` names it; two names may give the same file name.

    Raises:
        ValueError: It is not JSON, names no provenance, or belongs to another test.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the snapshot is not JSON ({error}): restore it from git") from error
    if not isinstance(document, dict) or not isinstance(document.get("provenance"), dict):
        raise ValueError("the snapshot names no provenance: restore it from git")
    owner = document["provenance"].get("test")
    if owner != test:
        raise ValueError(f"the snapshot belongs to {owner}, not to {test}: rename one of the two tests")
    return document


def differs_at_all(recorded: object, observed: object) -> str | None:
    """Compare as JSON text, which distinguishes 1 from True and from 1.0."""
    return None if to_text(recorded) == to_text(observed) else "not the same value"


def to_text(value: object) -> str:
    """Return ``value`` as strict JSON: sorted keys, a short list on one line, so that a diff shows what changed.

    Raises:
        ValueError: A number in it is not finite, or it is not JSON.
    """
    return _lines(to_plain(value), "") + "\n"


def to_plain(value: object) -> Any:
    """Return ``value`` with the types that it will have when it is read back.

    Raises:
        ValueError: A number in it is not finite, or it is not JSON.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (ValueError, TypeError) as error:
        raise ValueError(f"the value is not finite JSON: {error}") from error


def _lines(value: Any, indent: str) -> str:
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        entries = [f"{deeper}{json.dumps(key)}: {_lines(value[key], deeper)}" for key in sorted(value)]
        return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
    if isinstance(value, list) and _depth(value) > 2:
        entries = [f"{deeper}{_lines(entry, deeper)}" for entry in value]
        return "[\n" + ",\n".join(entries) + f"\n{indent}]"
    return json.dumps(value)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 3 if value else 1
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0
