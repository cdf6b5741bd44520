"""The pytest side of goldens: the fixture, the environment hook, and the states that a report shows.

PYTEST_DONT_REWRITE: `harness.plugin` imports this module before it loads it as a plugin.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import provenance

if TYPE_CHECKING:
    from syrupy.assertion import SnapshotAssertion

    from harness.golden.check import Golden, GoldenState, Recording

GOLDEN_STATES = pytest.StashKey[list[dict[str, object]]]()
"""What became of each golden: dictionaries with `nodeid`, `subject`, `state` and `detail`."""
RECORDING_ORIGIN = pytest.StashKey[dict[str, object]]()
"""Provenance taken before the first recording made the tree dirty; only in a run that records."""
RESULTS_FOLDER = "acceptance-results"

_ENVIRONMENTS = pytest.StashKey[dict[str, str]]()
_RECORDINGS: pytest.StashKey[list[Recording]] = pytest.StashKey()
_GOLDEN: pytest.StashKey[Golden] = pytest.StashKey()
_REVIEW = "golden-review.html"


class GoldenHooks:
    """Hooks that a project's conftest may implement."""

    @pytest.hookspec(firstresult=True)
    def pytest_golden_environment(self, config: pytest.Config, subject: str) -> str | None:
        """Return the key of the hardware, versions and settings that a subject's recorded values depend on."""


def results_folder(config: pytest.Config) -> Path:
    """Return where a run leaves its results: `--acceptance-dir`, or the default folder in the root folder."""
    chosen: str | None = config.getoption("acceptance_dir", None)
    return config.invocation_params.dir / chosen if chosen else config.rootpath / RESULTS_FOLDER


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Offer `pytest_golden_environment`."""
    pluginmanager.add_hookspecs(GoldenHooks)


def pytest_configure(config: pytest.Config) -> None:
    """Start with no state and no recording."""
    config.stash[_ENVIRONMENTS] = {}
    config.stash[GOLDEN_STATES] = []
    config.stash[_RECORDINGS] = []


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse, before anything runs, to record goldens of a state that no commit names."""
    config = session.config
    updating = any(config.getoption(name, False) for name in ("update_snapshots", "update_new_snapshots_only"))
    if not updating or config.getoption("collectonly") or not any(map(_is_golden_test, session.items)):
        return
    try:
        provenance.require_clean(config.rootpath)
    except provenance.DirtyTreeError as error:
        raise pytest.UsageError(f"goldens are recorded from a clean commit only: {error}") from error
    config.stash[RECORDING_ORIGIN] = provenance.collect(config.rootpath)


def _is_golden_test(item: pytest.Item) -> bool:
    # Other suites may have a fixture of this name; only a golden test of ours names a subject too.
    return "golden" in getattr(item, "fixturenames", ()) and item.get_closest_marker("subject") is not None


@pytest.fixture
def golden(request: pytest.FixtureRequest, snapshot: SnapshotAssertion) -> Golden:
    """The recorded value of this test for its subject in this environment; skips where none was recorded."""
    # syrupy and what it imports are loaded only where a golden is used.
    from harness.golden.check import Golden, GoldenState
    from harness.golden.extension import FOLDER, GoldenExtension, path_part

    config, subject = request.config, _subject(request.node)
    folder = config.rootpath / FOLDER / path_part(subject) / path_part(_environment(config, subject))

    def observe(state: GoldenState, detail: str) -> None:
        entry = {"nodeid": request.node.nodeid, "subject": subject, "state": str(state), "detail": detail}
        config.stash[GOLDEN_STATES].append(entry)

    assertion = snapshot.use_extension(GoldenExtension.in_folder(folder))
    origin = config.stash.get(RECORDING_ORIGIN, {})
    fresh = Golden(assertion, config.rootpath, origin, observe, config.stash[_RECORDINGS])
    if fresh.recording and hasattr(config, "workerinput"):
        fresh.conclude(GoldenState.REFUSED, "recorded in one process only: leave out -n")
        pytest.fail("goldens are recorded in one process only: leave out -n", pytrace=False)
    if not fresh.recording and not fresh.file.is_file():
        detail = f"{fresh.shown} is not recorded; --snapshot-update records it from a clean commit"
        fresh.conclude(GoldenState.NO_GOLDEN, detail)
        pytest.skip(f"{GoldenState.NO_GOLDEN}: {detail}")
    request.node.stash[_GOLDEN] = fresh
    return fresh


def _subject(node: pytest.Item) -> str:
    mark = node.get_closest_marker("subject")
    name = None if mark is None else mark.kwargs.get("name")
    if not isinstance(name, str):
        pytest.fail("a golden needs a model: mark the test with pytest.mark.subject(name=...)", pytrace=False)
    return name


def _environment(config: pytest.Config, subject: str) -> str:
    # Once per subject: a library that changes its number of threads must not move the goldens.
    known = config.stash[_ENVIRONMENTS]
    if subject not in known:
        environment = config.hook.pytest_golden_environment(config=config, subject=subject)
        if not environment:
            pytest.fail("a golden needs the hook pytest_golden_environment in a conftest", pytrace=False)
        known[subject] = environment
    return known[subject]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that asked for its golden and compared nothing with it."""
    result = yield
    used = item.stash.get(_GOLDEN, None)
    if used is not None and used.state is None:
        pytest.fail("the test never called golden.check, so nothing was compared", pytrace=False)
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the review of what was recorded; a run that recorded is never green, whatever its tests swallowed."""
    recordings = session.config.stash[_RECORDINGS]
    if not recordings:
        return
    from harness.golden.review import write_review

    write_review(recordings, results_folder(session.config) / _REVIEW)
    session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Count the states, say why any is not a match, and where the review lies."""
    states = config.stash[GOLDEN_STATES]
    if not states:
        return
    terminalreporter.section("goldens")
    counted = Counter(str(entry["state"]) for entry in states)
    terminalreporter.write_line(", ".join(f"{count} {state}" for state, count in sorted(counted.items())))
    for entry in states:
        if entry["state"] != "MATCH":
            terminalreporter.write_line(f"{entry['state']} {entry['nodeid']}: {entry['detail']}")
    if config.stash[_RECORDINGS]:
        path = os.path.relpath(results_folder(config) / _REVIEW, config.invocation_params.dir)
        terminalreporter.write_line(f"review: {path}")
