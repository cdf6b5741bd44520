"""The pytest plugin of snapshots: the fixture, the environment hook, and the states that a report shows.

PYTEST_DONT_REWRITE: ``harness.plugin`` imports this module before it loads it as a plugin.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import provenance

if TYPE_CHECKING:
    from syrupy.assertion import SnapshotAssertion

    from harness.snapshots.check import DeviceSnapshot, Recording, SnapshotState

SNAPSHOT_STATES = pytest.StashKey[list[dict[str, object]]]()
"""The result for each snapshot: dictionaries with ``nodeid``, ``subject``, ``state`` and ``detail``."""
RECORDING_ORIGIN = pytest.StashKey[dict[str, object]]()
"""Provenance taken before the first recording made the tree dirty; only in a run that records."""
RESULTS_FOLDER = "acceptance-results"

_ENVIRONMENTS = pytest.StashKey[dict[str, str]]()
_RECORDINGS: pytest.StashKey[list[Recording]] = pytest.StashKey()
_SNAPSHOT: pytest.StashKey[DeviceSnapshot] = pytest.StashKey()
_REVIEW = "snapshot-review.html"
_WORKER_STATES = "snapshot_states"


class SnapshotHooks:
    """Hooks that a project's conftest may implement."""

    @pytest.hookspec(firstresult=True)
    def pytest_snapshot_environment(self, config: pytest.Config, subject: str) -> str | None:
        """Return the key of the hardware, versions and settings that a subject's snapshots depend on."""


def results_folder(config: pytest.Config) -> Path:
    """Return where a run writes its results: ``--acceptance-dir``, or the default folder in the root folder."""
    chosen: str | None = config.getoption("acceptance_dir", None)
    return config.invocation_params.dir / chosen if chosen else config.rootpath / RESULTS_FOLDER


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Offer ``pytest_snapshot_environment``."""
    pluginmanager.add_hookspecs(SnapshotHooks)


def pytest_configure(config: pytest.Config) -> None:
    """Start with no state and no recording."""
    config.stash[_ENVIRONMENTS] = {}
    config.stash[SNAPSHOT_STATES] = []
    config.stash[_RECORDINGS] = []


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse, before anything runs, to record snapshots of a state that no commit names."""
    config = session.config
    updating = any(config.getoption(name, False) for name in ("update_snapshots", "update_new_snapshots_only"))
    if not updating or config.getoption("collectonly") or not any(map(_is_snapshot_test, session.items)):
        return
    try:
        provenance.require_clean(config.rootpath)
    except provenance.DirtyTreeError as error:
        raise pytest.UsageError(f"snapshots are recorded from a clean commit only: {error}") from error
    config.stash[RECORDING_ORIGIN] = provenance.collect(config.rootpath)


def _is_snapshot_test(item: pytest.Item) -> bool:
    # Other suites may have a fixture of this name; only our snapshot tests name a subject too.
    return "device_snapshot" in getattr(item, "fixturenames", ()) and item.get_closest_marker("subject") is not None


@pytest.fixture
def device_snapshot(request: pytest.FixtureRequest, snapshot: SnapshotAssertion) -> DeviceSnapshot:
    """The snapshot of this test for its subject in this environment; skips where none was recorded."""
    # Imported here, so that syrupy is loaded only where a snapshot is used.
    from harness.snapshots.check import DeviceSnapshot, SnapshotState
    from harness.snapshots.extension import FOLDER, SnapshotFile, path_part

    config, subject = request.config, _subject(request.node)
    folder = config.rootpath / FOLDER / path_part(subject) / path_part(_environment(config, subject))

    def observe(state: SnapshotState, detail: str) -> None:
        entry = {"nodeid": request.node.nodeid, "subject": subject, "state": str(state), "detail": detail}
        config.stash[SNAPSHOT_STATES].append(entry)

    assertion = snapshot.use_extension(SnapshotFile.in_folder(folder))
    origin = config.stash.get(RECORDING_ORIGIN, {})
    fresh = DeviceSnapshot(assertion, config.rootpath, origin, observe, config.stash[_RECORDINGS])
    if fresh.recording and hasattr(config, "workerinput"):
        fresh.conclude(SnapshotState.REFUSED, "recorded in one process only: leave out -n")
        pytest.fail("snapshots are recorded in one process only: leave out -n", pytrace=False)
    if not fresh.recording and not fresh.file.is_file():
        detail = f"{fresh.shown} is not recorded; --snapshot-update records it from a clean commit"
        fresh.conclude(SnapshotState.NOT_RECORDED, detail)
        pytest.skip(f"{SnapshotState.NOT_RECORDED}: {detail}")
    request.node.stash[_SNAPSHOT] = fresh
    return fresh


def _subject(node: pytest.Item) -> str:
    mark = node.get_closest_marker("subject")
    name = None if mark is None else mark.kwargs.get("name")
    if not isinstance(name, str):
        pytest.fail("a snapshot needs a model: mark the test with pytest.mark.subject(name=...)", pytrace=False)
    return name


def _environment(config: pytest.Config, subject: str) -> str:
    # Once per subject: a library that changes its number of threads must not move the snapshots.
    known = config.stash[_ENVIRONMENTS]
    if subject not in known:
        environment = config.hook.pytest_snapshot_environment(config=config, subject=subject)
        if not environment:
            pytest.fail("a snapshot needs the hook pytest_snapshot_environment in a conftest", pytrace=False)
        known[subject] = environment
    return known[subject]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that asked for its snapshot and compared nothing with it."""
    result = yield
    used = item.stash.get(_SNAPSHOT, None)
    if used is not None and used.state is None:
        pytest.fail("the test never called device_snapshot.check, so nothing was compared", pytrace=False)
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the states of a pytest-xdist worker; removed, because an interrupted worker is reported twice."""
    node.config.stash[SNAPSHOT_STATES] += getattr(node, "workeroutput", {}).pop(_WORKER_STATES, ())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the review of what was recorded; a run that recorded is never green, even if a test swallowed the error."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_WORKER_STATES] = session.config.stash[SNAPSHOT_STATES]
    recordings = session.config.stash[_RECORDINGS]
    if not recordings:
        return
    from harness.snapshots.review import write_review

    write_review(recordings, results_folder(session.config) / _REVIEW)
    session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the counts of states, the reason for each that is not a match, and the path of the review."""
    states = config.stash[SNAPSHOT_STATES]
    if not states:
        return
    terminalreporter.section("snapshots")
    counted = Counter(str(entry["state"]) for entry in states)
    terminalreporter.write_line(", ".join(f"{count} {state}" for state, count in sorted(counted.items())))
    for entry in states:
        if entry["state"] != "MATCH":
            terminalreporter.write_line(f"{entry['state']} {entry['nodeid']}: {entry['detail']}")
    if config.stash[_RECORDINGS]:
        path = os.path.relpath(results_folder(config) / _REVIEW, config.invocation_params.dir)
        terminalreporter.write_line(f"review: {path}")
