"""The snapshot of one test: compared with a run, or recorded from a clean commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, cast

from syrupy.assertion import SnapshotAssertion

from harness.snapshots.extension import Compare, SnapshotFile, differs_at_all, read_snapshot, test_label, to_plain


class SnapshotState(StrEnum):
    """The result for a test's snapshot."""

    MATCH = "MATCH"
    DIFFERENT = "DIFFERENT"
    NOT_RECORDED = "NO_GOLDEN"
    RECORDED = "RECORDED"
    REFUSED = "REFUSED"


class SnapshotError(AssertionError):
    """A snapshot was not confirmed: it differs, was only just recorded, or could not be recorded."""


@dataclass(frozen=True)
class Recording:
    """A snapshot that this run wrote.

    Attributes:
        test: The test, ``module::name``.
        path: Its file, relative to the project folder.
        old: The document that stood there, None when there was none.
        new: The document that stands there now.
    """

    test: str
    path: str
    old: Mapping[str, Any] | None
    new: Mapping[str, Any]


@dataclass
class DeviceSnapshot:
    """Compares the value of one test with its snapshot.

    Attributes:
        assertion: syrupy's assertion, with a ``SnapshotFile``.
        root: Project folder, which paths in messages are relative to.
        origin: Provenance of the clean commit that recordings are made from; empty when nothing is recorded.
        observe: Called with the state and its detail.
        recordings: Collects recordings for the review.
        state: Result of the check; None until ``check`` was called.
    """

    assertion: SnapshotAssertion
    root: Path
    origin: Mapping[str, object]
    observe: Callable[[SnapshotState, str], None]
    recordings: list[Recording]
    state: SnapshotState | None = field(default=None, init=False)

    @property
    def file(self) -> Path:
        """Where the snapshot is, or would be."""
        location = self.assertion.extension.get_location(test_location=self.assertion.test_location, index=0)
        return Path(location)

    @property
    def shown(self) -> str:
        """The path as messages show it, relative to the project folder."""
        return self.file.relative_to(self.root).as_posix()

    @property
    def recording(self) -> bool:
        """Whether syrupy was asked to write this snapshot."""
        new_only = self.assertion.update_new_snapshots_only and not self.file.is_file()
        return self.assertion.update_snapshots or new_only

    def check(self, value: object, compare: Compare, again: Callable[[], object] | None = None) -> None:
        """Compare ``value`` with the snapshot, or record it under ``--snapshot-update``.

        A value that equals the snapshot exactly matches and is not written again.

        Args:
            value: The observed value, JSON-ready.
            compare: Called with recorded and observed; returns None, or how they differ. Its tolerances belong
                to the test, never to the snapshot.
            again: Produces the value a second time; recording is refused where ``compare`` finds a difference.

        Raises:
            SnapshotError: The value differs, was only just recorded, or must not be recorded.
        """
        __tracebackhide__ = True
        if self.state is not None:
            raise SnapshotError("a test has one snapshot: check one dictionary of all values")
        if self.recording:
            self._record(value, compare, again)
        else:
            self._compare(value, compare)

    def conclude(self, state: SnapshotState, detail: str) -> None:
        """Set and report the state."""
        self.state = state
        self.observe(state, detail)

    def _compare(self, value: object, compare: Compare) -> None:
        __tracebackhide__ = True
        try:
            observed = to_plain(value)
        except ValueError as error:
            self._fail(SnapshotState.DIFFERENT, str(error))
        if not self._match(observed, compare):
            self._fail(SnapshotState.DIFFERENT, self._reason())
        self.conclude(SnapshotState.MATCH, "")

    def _record(self, value: object, compare: Compare, again: Callable[[], object] | None) -> None:
        __tracebackhide__ = True
        if self.origin.get("git_dirty") is not False:
            self._fail(SnapshotState.REFUSED, "a snapshot is recorded from a clean commit only: commit the code first")
        old = self._existing()
        try:
            observed = to_plain(value)
            difference = None if again is None else compare(observed, to_plain(again()))
        except ValueError as error:
            self._fail(SnapshotState.REFUSED, str(error))
        if difference is not None:
            self._fail(SnapshotState.REFUSED, f"two runs gave different values: {difference}")
        if not self._match(observed, differs_at_all):
            self._fail(SnapshotState.REFUSED, self._reason())
        if not self.assertion.executions[0].updated:
            self.conclude(SnapshotState.MATCH, "recorded already")
            return
        self.recordings.append(Recording(self._label, self.shown, old, self._document(observed)))
        self._fail(SnapshotState.RECORDED, "review and commit it, then run again")

    def _existing(self) -> Mapping[str, Any] | None:
        # A file of another test, or one that is no snapshot, is not overwritten.
        __tracebackhide__ = True
        if not self.file.is_file():
            return None
        try:
            return read_snapshot(self.file.read_text(encoding="utf-8"), self._label)
        except ValueError as error:
            self._fail(SnapshotState.REFUSED, str(error))

    def _match(self, value: object, compare: Compare) -> bool:
        cast("SnapshotFile", self.assertion.extension).compare = compare
        return bool(self.assertion == self._document(value))

    def _document(self, value: object) -> dict[str, object]:
        return {"value": value, "provenance": {**self.origin, "test": self._label}}

    def _reason(self) -> str:
        # syrupy swallows exceptions of comparing and writing.
        error = self.assertion.executions[0].exception
        if error is not None:
            return f"the check failed: {type(error).__name__}: {error}"
        return cast("SnapshotFile", self.assertion.extension).difference or "nothing was recorded"

    @property
    def _label(self) -> str:
        return test_label(self.assertion.test_location)

    def _fail(self, state: SnapshotState, detail: str) -> NoReturn:
        __tracebackhide__ = True
        self.conclude(state, detail)
        raise SnapshotError(f"{state} {self.shown}: {detail}")
