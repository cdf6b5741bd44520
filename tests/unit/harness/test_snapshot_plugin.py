"""Snapshots inside pytest: recording, comparing, and what syrupy must never do to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.harness.test_snapshot import git

FOLDER = "golden/small/cpu/test_one"
CONFTEST = """
    import json
    from harness.snapshots.plugin import SNAPSHOT_STATES

    pytest_plugins = ["harness.plugin"]

    def pytest_snapshot_environment(config):
        return "cpu"

    def pytest_sessionfinish(session):
        config = session.config
        (config.rootpath / "states.json").write_text(json.dumps(config.stash[SNAPSHOT_STATES]))
"""
HEAD = """
    import json
    from pathlib import Path

    import pytest

    pytestmark = pytest.mark.subject(name="small", learned=True)

    def observed(name):
        return json.loads(Path("observed.json").read_text())[name]

    def differ(recorded, observed):
        return None if recorded == observed else f"{recorded} became {observed}"
"""
TWO_TESTS = """
    def test_a(device_snapshot):
        device_snapshot.check(observed("a"), differ)

    def test_b(device_snapshot):
        device_snapshot.check(observed("b"), differ)
"""
TEST_C = "\n    def test_c(device_snapshot):\n        device_snapshot.check(observed('a'), differ)\n"


class SnapshotProject:
    """A project under git whose tests observe what ``observed.json``, which git ignores, says."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester, self.path = pytester, pytester.path
        pytester.makeconftest(CONFTEST)
        (self.path / ".gitignore").write_text("acceptance-results\n__pycache__\nobserved.json\nstates.json\n")
        git(self.path, "init")
        self.observe(a=[1, 2], b=[3])

    def observe(self, **values: object) -> None:
        (self.path / "observed.json").write_text(json.dumps(values))

    def write(self, tests: str, module: str = "test_one") -> None:
        self.pytester.makepyfile(**{module: HEAD + tests})
        self.commit()

    def commit(self) -> None:
        git(self.path, "add", ".")
        git(self.path, "commit", "--allow-empty", "-m", "state")

    def run(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", "error", "-ra", *arguments)

    def record(self, *arguments: str) -> pytest.RunResult:
        return self.run("--snapshot-update", *arguments)

    def states(self) -> list[tuple[str, str]]:
        states = json.loads((self.path / "states.json").read_text())
        assert all(entry.keys() == {"nodeid", "subject", "state", "detail"} for entry in states)
        return [(entry["nodeid"].partition("::")[2], entry["state"]) for entry in states]

    def files(self) -> dict[str, bytes]:
        folder = self.path / "golden"
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def snapshot(self, name: str) -> Any:
        return json.loads((self.path / FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def project(pytester: pytest.Pytester) -> SnapshotProject:
    return SnapshotProject(pytester)


@pytest.fixture
def recorded(project: SnapshotProject) -> SnapshotProject:
    """A project whose two snapshots are recorded and committed."""
    project.write(TWO_TESTS)
    project.record().assert_outcomes(failed=2)
    project.commit()
    return project


def test_without_a_snapshot_the_test_is_skipped_and_says_so(project: SnapshotProject) -> None:
    project.write(TWO_TESTS)
    result = project.run()
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*NO_GOLDEN: golden/small/cpu/test_one/test_a.json is not recorded*"])
    assert project.states() == [("test_a", "NO_GOLDEN"), ("test_b", "NO_GOLDEN")]


def test_recording_fails_and_the_next_run_matches(project: SnapshotProject) -> None:
    project.write(TWO_TESTS)
    result = project.record()
    result.assert_outcomes(failed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*RECORDED golden/small/cpu/test_one/test_a.json: review and commit it*"])
    assert project.states() == [("test_a", "RECORDED"), ("test_b", "RECORDED")]
    document = project.snapshot("test_b")
    assert document.keys() == {"value", "provenance"}
    assert document["value"] == [3]
    assert document["provenance"]["test"] == "test_one::test_b"
    assert document["provenance"]["git_dirty"] is False
    again = project.run()
    again.assert_outcomes(passed=2)
    assert again.ret == 0
    assert project.states() == [("test_a", "MATCH"), ("test_b", "MATCH")]


def test_another_value_is_different_and_can_be_recorded(recorded: SnapshotProject) -> None:
    recorded.observe(a=[1, 9], b=[3])
    result = recorded.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*DIFFERENT golden/small/cpu/test_one/test_a.json: [[]1, 2] became [[]1, 9]*"])
    assert recorded.states() == [("test_a", "DIFFERENT"), ("test_b", "MATCH")]
    assert recorded.snapshot("test_a")["value"] == [1, 2]
    recorded.record().assert_outcomes(passed=1, failed=1)
    assert recorded.states() == [("test_a", "RECORDED"), ("test_b", "MATCH")]
    assert recorded.snapshot("test_a")["value"] == [1, 9]
    page = (recorded.path / "acceptance-results" / "snapshot-review.html").read_text(encoding="utf-8")
    assert "test_one::test_a" in page
    assert "test_one::test_b" not in page


def test_what_the_comparison_tolerates_is_still_recorded_when_asked(recorded: SnapshotProject) -> None:
    recorded.write(TWO_TESTS.replace("differ)", "lambda recorded, observed: None)"))
    recorded.observe(a=[1, 9], b=[3])
    recorded.run().assert_outcomes(passed=2)
    recorded.record().assert_outcomes(passed=1, failed=1)
    assert recorded.snapshot("test_a")["value"] == [1, 9]


def test_a_subset_is_recorded_without_touching_the_rest(recorded: SnapshotProject) -> None:
    other = recorded.path / "golden/large/gpu/test_gone/test_x.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}\n")
    (recorded.path / FOLDER / "test_gone.json").write_text("{}\n")
    recorded.commit()
    before = recorded.files()
    recorded.observe(a=[7], b=[8])
    recorded.record("-k", "test_b").assert_outcomes(failed=1, deselected=1)
    after = recorded.files()
    assert {name for name in after if before[name] != after[name]} == {"small/cpu/test_one/test_b.json"}
    assert before.keys() == after.keys()


def test_updating_new_snapshots_only_leaves_the_recorded_ones(recorded: SnapshotProject) -> None:
    (recorded.path / FOLDER / "test_b.json").unlink()
    recorded.commit()
    recorded.observe(a=[7], b=[8])
    recorded.run("--snapshot-update-new-only").assert_outcomes(failed=2)
    assert recorded.states() == [("test_a", "DIFFERENT"), ("test_b", "RECORDED")]
    assert recorded.snapshot("test_a")["value"] == [1, 2]


@pytest.mark.parametrize("arguments", [(), ("--ignore=test_one.py",)])
def test_the_snapshots_of_a_module_that_is_not_collected_survive(
    recorded: SnapshotProject, arguments: tuple[str, ...]
) -> None:
    before = recorded.files()
    recorded.write(
        "\n    def test_c(device_snapshot):\n        device_snapshot.check(observed('a'), differ)\n", "test_two"
    )
    if not arguments:
        module = recorded.path / "test_one.py"
        module.write_text("import pytest\npytest.skip('no GPU', allow_module_level=True)\n" + module.read_text())
        recorded.commit()
    recorded.record(*arguments)
    assert recorded.states() == [("test_c", "RECORDED")]
    assert before.items() < recorded.files().items()
    recorded.commit()
    result = recorded.run(*arguments)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*unused*")


def test_snapshots_that_no_test_asked_for_fail_no_run(recorded: SnapshotProject) -> None:
    (recorded.path / FOLDER / "test_gone.json").write_text("{}\n")
    for arguments in ((), ("-k", "test_b"), ("test_one.py::test_a",)):
        result = recorded.run(*arguments)
        assert result.ret == 0
        result.stdout.no_fnmatch_line("*unused*")
    recorded.write("\n    def test_plain():\n        pass\n")
    result = recorded.run()
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*unused*")


def test_a_dirty_tree_is_refused_before_anything_runs(recorded: SnapshotProject) -> None:
    before = recorded.files()
    (recorded.path / "new.py").write_text("pass\n")
    recorded.observe(a=[7], b=[8])
    result = recorded.record()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "clean commit only: uncommitted changes: new.py" in result.stderr.str()
    assert recorded.states() == []
    assert recorded.files() == before


@pytest.mark.parametrize(
    ("check", "complaint"),
    [
        (
            "device_snapshot.check([1], differ, again=lambda: [2])",
            "*two runs gave different values: [[]1] became [[]2]*",
        ),
        ("device_snapshot.check([float('nan')], lambda r, o: None)", "*not finite JSON*"),
        ("device_snapshot.check([1], differ, again=lambda: [float('inf')])", "*not finite JSON*"),
        ("device_snapshot.check(object(), lambda r, o: None)", "*not finite JSON*"),
    ],
)
def test_an_unfit_value_is_refused(project: SnapshotProject, check: str, complaint: str) -> None:
    project.write(f"\n    def test_a(device_snapshot):\n        {check}\n")
    result = project.record()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([complaint])
    assert project.states() == [("test_a", "REFUSED")]
    assert not (project.path / "golden").exists()


def test_a_value_that_is_not_finite_never_matches(recorded: SnapshotProject) -> None:
    recorded.write(TWO_TESTS.replace("differ)", "lambda recorded, observed: None)"))
    recorded.observe(a=[float("nan")], b=[3])
    recorded.run().assert_outcomes(passed=1, failed=1)
    assert recorded.states() == [("test_a", "DIFFERENT"), ("test_b", "MATCH")]


def test_a_comparison_that_raises_is_not_a_match(recorded: SnapshotProject) -> None:
    recorded.write(TWO_TESTS.replace("differ)", "lambda recorded, observed: recorded['missing'])"))
    result = recorded.run()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*DIFFERENT*the check failed: TypeError*"])


def test_tests_whose_names_make_one_file_do_not_share_a_snapshot(project: SnapshotProject) -> None:
    project.write(
        "\n    @pytest.mark.parametrize('name', ['x/y', 'x:y'])\n"
        "    def test_a(device_snapshot, name):\n        device_snapshot.check([1], differ)\n"
    )
    result = project.record()
    assert [state for _, state in project.states()] == ["RECORDED", "REFUSED"]
    assert list(project.files()) == ["small/cpu/test_one/test_a_x_y.json"]
    result.stdout.fnmatch_lines(["*belongs to test_one::test_a[[]x/y], not to test_one::test_a[[]x:y]*"])
    project.commit()
    project.run().assert_outcomes(passed=1, failed=1)


def test_a_file_with_more_than_value_and_provenance_is_recorded_again(recorded: SnapshotProject) -> None:
    path = recorded.path / FOLDER / "test_a.json"
    path.write_text(json.dumps({**recorded.snapshot("test_a"), "tolerance": 1}))
    recorded.commit()
    result = recorded.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*holds provenance, tolerance, value: record it again*"])
    recorded.record().assert_outcomes(passed=1, failed=1)
    assert recorded.snapshot("test_a").keys() == {"value", "provenance"}


@pytest.mark.parametrize(
    "test",
    [
        "def test_a(device_snapshot):\n        with pytest.raises(AssertionError):\n"
        "            device_snapshot.check([1], differ)\n",
        "@pytest.mark.xfail\n    def test_a(device_snapshot):\n        device_snapshot.check([1], differ)\n",
    ],
)
def test_a_run_that_recorded_is_never_green(project: SnapshotProject, test: str) -> None:
    project.write(f"\n    {test}")
    assert project.record().ret == 1
    assert project.run().ret == (1 if "raises" in test else 0)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("pass", "*never called device_snapshot.check*"),
        ("device_snapshot.check([1], differ)\n        device_snapshot.check([1], differ)", "*a test has one snapshot*"),
    ],
)
def test_a_test_compares_exactly_once(project: SnapshotProject, body: str, complaint: str) -> None:
    project.write("\n    def test_a(device_snapshot):\n        device_snapshot.check([1], differ)\n")
    project.record()
    project.write(f"\n    def test_a(device_snapshot):\n        {body}\n")
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([complaint])


def test_another_environment_has_no_snapshot(recorded: SnapshotProject) -> None:
    recorded.pytester.makeconftest(CONFTEST.replace('"cpu"', '"gpu 9000"'))
    recorded.run().assert_outcomes(skipped=2)
    recorded.commit()
    recorded.record("-k", "test_a")
    assert "small/gpu_9000/test_one/test_a.json" in recorded.files()


def test_each_subject_has_an_environment_of_its_own(recorded: SnapshotProject) -> None:
    own = CONFTEST.replace("(config):", "(config, subject):").replace('"cpu"', '"cpu-" + subject')
    recorded.pytester.makeconftest(own)
    mark = "\n    @pytest.mark.subject(name='large', learned=True)"
    recorded.write(
        f"{TWO_TESTS}{mark}\n    def test_c(device_snapshot):\n        device_snapshot.check(observed('a'), differ)\n"
    )
    recorded.record().assert_outcomes(failed=3)
    assert {"small/cpu-small/test_one/test_a.json", "large/cpu-large/test_one/test_c.json"} <= set(recorded.files())


@pytest.mark.parametrize(
    ("conftest", "head", "complaint"),
    [
        (CONFTEST.replace('return "cpu"', "return None"), HEAD, "*needs the hook pytest_snapshot_environment*"),
        (CONFTEST, HEAD.replace("pytestmark", "unused"), "*a snapshot needs a model*"),
    ],
)
def test_a_snapshot_needs_an_environment_and_a_subject(
    project: SnapshotProject, conftest: str, head: str, complaint: str
) -> None:
    project.pytester.makeconftest(conftest)
    project.pytester.makepyfile(test_one=head + TWO_TESTS)
    result = project.run()
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines([complaint])


def test_workers_do_not_record(project: SnapshotProject) -> None:
    project.write(TWO_TESTS)
    result = project.record("-n", "1", "-p", "xdist")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*recorded in one process only: leave out -n*"])
    assert not (project.path / "golden").exists()


def test_the_review_lies_in_the_results_folder_that_was_asked_for(project: SnapshotProject, tmp_path: Path) -> None:
    project.write(TWO_TESTS)
    result = project.record("--acceptance-dir", str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "snapshot-review.html").is_file()
    result.stdout.fnmatch_lines(["2 RECORDED", "review: *snapshot-review.html"])
