"""The pytest plugin: thin hooks over one `AcceptanceSession`.

Load it with `pytest_plugins = ["harness.plugin"]` in the root conftest or with `-p harness.plugin`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from harness import provenance
from harness.criteria import DOCUMENTED
from harness.golden.store import Compare, GoldenStore
from harness.report.document import portable_arguments
from harness.report.table import table_text
from harness.session import AcceptanceSession, Measured, Trial
from harness.verdict import Decision, Outcome, Subject

_SESSION = pytest.StashKey[AcceptanceSession]()
_PROVENANCE = pytest.StashKey[dict[str, object]]()
_TRIAL = pytest.StashKey[Trial]()
_RESULTS_FOLDER = "acceptance-results"


class AcceptanceHooks:
    """Hooks that a project's conftest may implement."""

    @pytest.hookspec(firstresult=True)
    def pytest_golden_environment(self, config: pytest.Config) -> str | None:
        """Return the key of the hardware and versions that recorded values depend on."""


class Golden:
    """The golden of one test; see `GoldenStore.check`."""

    def __init__(self, store: GoldenStore, module: str, name: str) -> None:
        """Bind a store to a test's module and name."""
        self._store, self._module, self._name = store, module, name

    def check(
        self,
        value: object,
        compare: Compare,
        again: Callable[[], object] | None = None,
        tolerance: object = None,
    ) -> None:
        """Compare `value` with the recorded one, or record it under `--golden-update`."""
        self._store.check(self._module, self._name, value, compare, again, tolerance)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("acceptance")
    group.addoption(
        "--acceptance-dir",
        metavar="DIR",
        help=f"where the verdict and its report are written (default: {_RESULTS_FOLDER} in the root folder)",
    )
    group.addoption(
        "--golden-update",
        action="store_true",
        help="record goldens from a clean commit; recording tests fail, so review, commit and run again",
    )


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Offer `pytest_golden_environment`."""
    pluginmanager.add_hookspecs(AcceptanceHooks)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks and start the session object."""
    # A verdict needs every result in one process; workers would each decide about their own share.
    if any(config.getoption(option, None) for option in ("numprocesses", "tx")):
        raise pytest.UsageError("acceptance runs in one process: leave out -n, or load no harness.plugin")
    config.addinivalue_line("markers", "criterion(id): the test decides this documented criterion")
    config.addinivalue_line(
        "markers", "subject(name, learned, thresholds): the model under test, and its own thresholds"
    )
    chosen = config.getoption("acceptance_dir")
    folder = config.invocation_params.dir / chosen if chosen else config.rootpath / _RESULTS_FOLDER
    config.stash[_SESSION] = AcceptanceSession(folder)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to record goldens of a state that no commit names."""
    if session.config.getoption("golden_update"):
        try:
            provenance.require_clean(session.config.rootpath)
        except provenance.DirtyTreeError as error:
            raise pytest.UsageError(f"--golden-update: {error}") from error
        # Taken now: the first recorded file makes the tree dirty.
        session.config.stash[_PROVENANCE] = provenance.collect(session.config.rootpath)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Register the criterion tests and check the registry, before anything is deselected."""
    acceptance = config.stash[_SESSION]
    files = []
    for item in items:
        if any(item.iter_markers("criterion")):
            item.stash[_TRIAL] = _trial(acceptance, item)
            files.append(item.path)
    # Unreadable files and --lf leave tests out: the run cannot pass, and its own message is the better one.
    partial = session.testsfailed or config.getoption("lf", False)
    if files and not partial and _collected_whole_folder(config, files):
        untested = acceptance.untested()
        if untested:
            raise pytest.UsageError(
                "documented criteria without a test, write one marked "
                "@pytest.mark.criterion(id):\n  " + "\n  ".join(untested)
            )


def _trial(acceptance: AcceptanceSession, item: pytest.Item) -> Trial:
    marks = list(item.iter_markers("criterion"))
    if len(marks) > 1 or len(marks[0].args) != 1 or marks[0].kwargs:
        raise pytest.UsageError(f"{item.nodeid}: mark it once, @pytest.mark.criterion('group.name')")
    criterion_id = marks[0].args[0]
    if criterion_id not in DOCUMENTED:
        known = ", ".join(DOCUMENTED)
        raise pytest.UsageError(f"{item.nodeid}: no documented criterion {criterion_id!r}; known: {known}")
    mark = item.get_closest_marker("subject")
    if mark is None:
        raise pytest.UsageError(
            f"{item.nodeid}: a criterion test needs a model; parametrize it with "
            "pytest.mark.subject(name=..., learned=..., thresholds={...})"
        )
    try:
        return acceptance.add(item.nodeid, criterion_id, _subject(mark))
    except ValueError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from error


def _subject(mark: pytest.Mark) -> Subject:
    # A truthy string would pass for learned weights, so the types are checked.
    name, learned = mark.kwargs.get("name"), mark.kwargs.get("learned")
    unknown = mark.kwargs.keys() - {"name", "learned", "thresholds"}
    if mark.args or unknown or not isinstance(name, str) or not isinstance(learned, bool):
        raise ValueError("the subject mark takes name='...', learned=True or False, and optionally thresholds")
    return Subject(name, learned, mark.kwargs.get("thresholds", {}))


def _collected_whole_folder(config: pytest.Config, files: list[Path]) -> bool:
    paths = [config.invocation_params.dir / str(argument).partition("::")[0] for argument in config.args]
    folders = [Path(os.path.realpath(path)) for path in paths if path.is_dir()]
    real_files = [Path(os.path.realpath(file)) for file in files]
    return any(file.is_relative_to(folder) for folder in folders for file in real_files)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which criterion tests survived deselection."""
    for item in session.items:
        if _TRIAL in item.stash and not session.config.getoption("collectonly"):
            item.stash[_TRIAL].selected = True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip before any fixture is built what random weights cannot show."""
    trial = item.stash.get(_TRIAL, None)
    if trial is not None and trial.not_applicable_reason:
        pytest.skip(trial.not_applicable_reason)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Judge inside the call phase, so that a violated bound is a failure of the test everywhere."""
    result = yield
    trial = item.stash.get(_TRIAL, None)
    if trial is not None:
        judged = trial.judge()
        if judged.outcome is not Outcome.PASS:
            pytest.fail(f"{judged.criterion_id}: {judged.reason}", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Take note of each phase, and let no phase look better than its conclusion."""
    report = yield
    trial = item.stash.get(_TRIAL, None)
    if trial is None:
        return report
    marked = call.when == "call" and item.get_closest_marker("xfail") is not None
    xfail = marked or hasattr(report, "wasxfail")
    complaint = trial.observe(call.when, report.outcome, _detail(call, report), xfail)
    if complaint is not None and (xfail or not report.failed):
        report.outcome, report.longrepr = "failed", complaint
        if hasattr(report, "wasxfail"):
            del report.wasxfail
    described = trial.describe()
    kept = [entry for entry in item.user_properties if entry not in trial.properties]
    item.user_properties[:] = [*kept, *described]
    report.user_properties = list(item.user_properties)
    trial.properties = described
    return report


def _detail(call: pytest.CallInfo[None], report: pytest.TestReport) -> str:
    if call.excinfo is None:
        text, prefix = str(report.longrepr), ""
    else:
        text, prefix = str(call.excinfo.value), "" if report.skipped else f"{call.excinfo.typename}: "
    return prefix + (text.strip().splitlines() or ["no message"])[0]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Decide, set the exit status, and write the verdict and its report."""
    config = session.config
    acceptance = config.stash[_SESSION]
    if acceptance.active:
        origin = config.stash.get(_PROVENANCE, None) or provenance.collect(config.rootpath)
        given = [str(argument) for argument in config.invocation_params.args]
        arguments = portable_arguments(given, config.rootpath)
        session.exitstatus = acceptance.conclude(int(session.exitstatus), origin, arguments)
        acceptance.write()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the tables, the verdict and where the report lies."""
    acceptance = config.stash[_SESSION]
    if acceptance.document is None:
        return
    terminalreporter.section("acceptance")
    terminalreporter.write_line(table_text(acceptance.document))
    if acceptance.document["decision"] == Decision.ACCEPTED and acceptance.exit_status != 0:
        status = acceptance.exit_status
        terminalreporter.write_line(f"exit status {status}: the run failed outside the criteria")
    path = os.path.relpath(acceptance.folder / "report.html", config.invocation_params.dir)
    terminalreporter.write_line(f"report: {path}")


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """What this test measured; a criterion is judged on it after the test's body."""
    fresh = Measured()
    trial = request.node.stash.get(_TRIAL, None)
    if trial is not None:
        # A re-run starts with nothing measured, but keeps what the first run concluded.
        trial.measured, trial.judged = fresh, None
    return fresh


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The recorded value of this test for its subject in this environment."""
    mark = request.node.get_closest_marker("subject")
    environment = request.config.hook.pytest_golden_environment(config=request.config)
    if mark is None or not isinstance(mark.kwargs.get("name"), str):
        pytest.fail("a golden needs a model: mark the test with pytest.mark.subject(name=...)", pytrace=False)
    if not environment:
        pytest.fail("a golden needs the hook pytest_golden_environment in a conftest", pytrace=False)
    root, recording = request.config.rootpath, request.config.getoption("golden_update")
    origin = request.config.stash.get(_PROVENANCE, {})
    store = GoldenStore(root, mark.kwargs["name"], environment, recording, origin)
    return Golden(store, request.node.path.stem, request.node.name)
