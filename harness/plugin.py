"""The pytest plugin: thin hooks over one ``AcceptanceSession``.

Installing the project loads it, like any pytest plugin; it changes nothing for a suite without criteria.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest

from harness import provenance
from harness.arguments import FolderOption, collected_whole_folder
from harness.criteria_set import NO_CRITERIA, CriteriaSet
from harness.recorder import Recorder
from harness.session import AcceptanceSession
from harness.snapshots.plugin import RECORDING_ORIGIN, RESULTS_FOLDER, SNAPSHOT_STATES, results_folder
from harness.subject import marked_subject
from harness.trial import Trial
from harness.verdict import Decision, Outcome

pytest_plugins = ("harness.arguments", "harness.snapshots.plugin")

_SESSION = pytest.StashKey[AcceptanceSession]()
_TRIAL = pytest.StashKey[Trial]()
_LOST_WORKER = pytest.StashKey[bool]()
_WORKER_OUTPUT = "acceptance"
_WORKER_USAGE_ERROR = "acceptance_usage_error"


class AcceptanceHooks:
    """Hooks that a project's conftest may implement; the first is needed where there are criterion tests."""

    @pytest.hookspec(firstresult=True)
    def pytest_acceptance_criteria(self, config: pytest.Config) -> CriteriaSet | None:
        """Return the criteria that every subject must meet."""

    @pytest.hookspec
    def pytest_acceptance_provenance(self, config: pytest.Config) -> Mapping[str, object] | None:
        """Return more about where results come from, such as the GPU; added to the document's provenance."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("acceptance")
    group.addoption(
        "--acceptance-dir",
        action=FolderOption,
        metavar="DIR",
        help=f"where the verdict and its report are written (default: {RESULTS_FOLDER} in the root folder)",
    )


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Offer the hooks."""
    pluginmanager.add_hookspecs(AcceptanceHooks)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.addinivalue_line(
        "markers", "criterion(which): the test decides this criterion, an id of the set or another Criterion"
    )
    config.addinivalue_line(
        "markers", "subject(name, learned, thresholds, access, out_of_scope, scope): what is judged, and by what"
    )


def _session(config: pytest.Config) -> AcceptanceSession:
    """The session object, from the first criterion test on."""
    if _SESSION not in config.stash:
        criteria = config.hook.pytest_acceptance_criteria(config=config)
        if not isinstance(criteria, CriteriaSet):
            raise pytest.UsageError(NO_CRITERIA)
        try:
            config.stash[_SESSION] = AcceptanceSession(results_folder(config), criteria)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[_SESSION]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Register the criterion tests and check the registry, before anything is deselected."""
    try:
        _register(session, config, items)
    except pytest.UsageError as error:
        # Without tests nothing is selected, so nothing replaces the results of an earlier run.
        items.clear()
        if not hasattr(config, "workeroutput"):
            raise
        # pytest-xdist would report an internal error of its own; the process that decides raises this one.
        config.workeroutput[_WORKER_USAGE_ERROR] = str(error)


def _register(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    files = []
    for item in list(items):
        if any(item.iter_markers("criterion")):
            if not __debug__:
                raise pytest.UsageError("python -O removes assertions, which criteria rely on; run it without -O")
            files.append(item.path)
            if trial := _trial(_session(config), item):
                item.stash[_TRIAL] = trial
            else:
                items.remove(item)
                config.hook.pytest_deselected(items=[item])
    # Unreadable files and --lf leave tests out: the run cannot pass, and its own message is the better one.
    partial = session.testsfailed or config.getoption("lf", False)
    if files and not partial and collected_whole_folder(config, files):
        untested = _session(config).untested()
        if untested:
            raise pytest.UsageError(
                f"criteria of the set {_session(config).criteria.name} without a test, write one marked "
                "@pytest.mark.criterion(id):\n  " + "\n  ".join(untested)
            )


def _trial(acceptance: AcceptanceSession, item: pytest.Item) -> Trial | None:
    """The trial of a test; None where its subject declares the criterion out of scope."""
    marks = list(item.iter_markers("criterion"))
    if len(marks) > 1 or len(marks[0].args) != 1 or marks[0].kwargs:
        raise pytest.UsageError(
            f"{item.nodeid}: mark it once, @pytest.mark.criterion('group.name') or with a Criterion"
        )
    mark = item.get_closest_marker("subject")
    if mark is None:
        raise pytest.UsageError(
            f"{item.nodeid}: a criterion test needs a subject; parametrize it with "
            "pytest.mark.subject(name=..., learned=..., thresholds={...})"
        )
    try:
        criterion, subject = acceptance.criteria.marked(marks[0].args[0]), marked_subject(mark.args, mark.kwargs)
        if criterion.id in subject.out_of_scope:
            acceptance.criteria.check(subject)
            return None
        return acceptance.add(item.nodeid, criterion, subject)
    except ValueError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from error


def pytest_collection_finish(session: pytest.Session) -> None:
    """Mark the criterion tests that survived deselection."""
    for item in session.items:
        if _TRIAL in item.stash and not session.config.getoption("collectonly"):
            item.stash[_TRIAL].selected = True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture is built, skip what random weights cannot show."""
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
    """Record the result of each phase, and let no phase look better than its conclusion."""
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


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Say the criterion's outcome as soon as its test has run, in place of the test's own."""
    described = dict(report.user_properties) if report.when == "call" else {}
    if "criterion" not in described or hasattr(report, "wasxfail"):
        return None
    word = f"{described['outcome']} {described['criterion']}"
    letter = {"passed": ".", "failed": "F"}.get(report.outcome, "s")
    return report.outcome, letter, word + (f" ({described['reason']})" if described["reason"] else "")


def _detail(call: pytest.CallInfo[None], report: pytest.TestReport) -> str:
    if call.excinfo is None:
        text, prefix = str(report.longrepr), ""
    else:
        text, prefix = str(call.excinfo.value), "" if report.skipped else f"{call.excinfo.typename}: "
    return prefix + (text.strip().splitlines() or ["no message"])[0]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Merge the results of a pytest-xdist worker; the tests of a crashed worker stay NOT_RUN."""
    config, output = node.config, getattr(node, "workeroutput", None)
    if output is None:
        config.stash[_LOST_WORKER] = True
    elif _WORKER_USAGE_ERROR in output:
        raise pytest.UsageError(output[_WORKER_USAGE_ERROR])
    elif _WORKER_OUTPUT in output:
        # Removed, because an interrupted worker is reported twice.
        exported = output.pop(_WORKER_OUTPUT)
        try:
            _session(config).merge(exported)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Decide, set the exit status, and write the verdict and its report."""
    config = session.config
    acceptance = config.stash.get(_SESSION, None)
    if acceptance is None:
        return
    acceptance.lost_worker = config.stash.get(_LOST_WORKER, False)
    acceptance.snapshots = config.stash.get(SNAPSHOT_STATES, [])
    if hasattr(config, "workeroutput"):
        config.workeroutput[_WORKER_OUTPUT] = acceptance.export()
    elif acceptance.active:
        from harness.report.document import portable_arguments

        given = [str(argument) for argument in config.invocation_params.args]
        arguments = portable_arguments(given, config.rootpath)
        session.exitstatus = acceptance.conclude(_status(session), _origin(config), arguments)
        acceptance.write()


def _status(session: pytest.Session) -> int:
    most_failures = session.config.getoption("maxfail") or 0
    if session.exitstatus == pytest.ExitCode.INTERRUPTED and 0 < most_failures <= session.testsfailed:
        # With workers, stopping after the first failures counts as an interruption, without them it does not.
        return pytest.ExitCode.TESTS_FAILED
    return int(session.exitstatus)


def _origin(config: pytest.Config) -> dict[str, object]:
    # A recording dirties the tree, so a recording run was described before its first one.
    origin = config.stash.get(RECORDING_ORIGIN, None) or provenance.collect(config.rootpath)
    for more in config.hook.pytest_acceptance_provenance(config=config):
        origin = {**origin, **more}
    return origin


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the tables, the verdict and the path of the report."""
    acceptance = config.stash.get(_SESSION, None)
    if acceptance is None or acceptance.document is None:
        return
    from harness.report.table import table_text

    terminalreporter.section("acceptance")
    terminalreporter.write_line(table_text(acceptance.document))
    if acceptance.document["decision"] == Decision.ACCEPTED and acceptance.exit_status != 0:
        status = acceptance.exit_status
        terminalreporter.write_line(f"exit status {status}: the run failed outside the criteria")
    path = os.path.relpath(acceptance.folder / "report.html", config.invocation_params.dir)
    terminalreporter.write_line(f"report: {path}")


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Recorder:
    """Records what this test measures; the criterion is judged on it after the test's body."""
    fresh = Recorder()
    trial = request.node.stash.get(_TRIAL, None)
    if trial is not None:
        # A re-run starts with nothing recorded, but keeps the conclusion of the first run.
        trial.measured, trial.judged = fresh, None
    return fresh


@pytest.fixture(scope="session")
def identify(request: pytest.FixtureRequest) -> Callable[[str, Mapping[str, object]], None]:
    """Names the artefact behind a subject: ``identify(subject_name, identity)`` binds the verdict to it."""
    return _session(request.config).identify
