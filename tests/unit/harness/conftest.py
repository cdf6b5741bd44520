"""Shared helpers: a miniature project whose thirteen criterion tests can be broken one at a time."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

# In-process inner runs forget what they import: numpy and matplotlib must outlive them.
import matplotlib.backends.backend_svg  # noqa: F401
import numpy  # noqa: F401
import pytest

import harness.plugin
import harness.report.figures  # noqa: F401
from acceptance.criteria import DOCUMENTED
from harness.criteria import Bound
from harness.statistics import Proportion


def passing_value(bound: Bound) -> bool | float | Proportion:
    """Return a value that meets the bound."""
    if bound.confidence is not None:
        return Proportion(200 if bound.comparison == ">=" else 0, 200)
    if isinstance(bound.threshold, bool):
        return bound.threshold
    return bound.threshold + {"<": -1.0, ">": 1.0}.get(bound.comparison, 0.0)


def passing_measures(criterion_id: str) -> dict[str, bool | float | Proportion]:
    """Return measurements that pass the criterion."""
    return {bound.measure: passing_value(bound) for bound in DOCUMENTED[criterion_id].bounds}


def run_in_processes(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest in a process of its own with the plugins under test alone.

    To import every installed plugin, in it and in each of its workers, takes three seconds.
    """
    pytester._monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugins = ("-p", "xdist", "-p", "syrupy", "-p", "harness.plugin", "-p", "no:cacheprovider")
    return pytester.runpytest_subprocess(*plugins, *arguments)


class Project:
    """A generated project with one passing test per documented criterion."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.subjects: dict[str, dict[str, object]] = {"small": {"learned": True}}
        self.bodies = {id_: f"measured.record(**{passing_measures(id_)!r})" for id_ in DOCUMENTED}
        self.decorators: dict[str, str] = {}
        self.arguments: dict[str, str] = {}
        self.extra = ""
        self.conftest = ""

    def run(self, *arguments: str) -> pytest.RunResult:
        """Write the project and run pytest in it, in this process."""
        self.write()
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)

    def run_in_processes(self, *arguments: str) -> pytest.RunResult:
        """Write the project and run pytest in it, in a process of its own, so that it can have workers."""
        self.write()
        return run_in_processes(self.pytester, *arguments)

    def write(self) -> None:
        """Write the conftest and the criterion tests."""
        marks = ", ".join(
            f"pytest.param({name!r}, id={name!r}, marks=pytest.mark.subject(name={name!r}, **{settings!r}))"
            for name, settings in self.subjects.items()
        )
        self.pytester.makeconftest(
            "import pytest\n"
            "from acceptance.criteria import DOCUMENTED\n"
            "def pytest_acceptance_criteria():\n"
            "    return DOCUMENTED\n"
            "def pytest_generate_tests(metafunc):\n"
            "    if 'target' in metafunc.fixturenames:\n"
            f"        metafunc.parametrize('target', [{marks}])\n" + textwrap.dedent(self.conftest)
        )
        tests = ["import pytest", "from harness.statistics import Proportion"]
        for id_, body in self.bodies.items():
            tests.append(self.decorators.get(id_, ""))
            tests.append(f"@pytest.mark.criterion({id_!r})")
            tests.append(f"def test_{id_.replace('.', '_')}(measured, target{self.arguments.get(id_, '')}):")
            tests.append(textwrap.indent(textwrap.dedent(body), "    "))
        self.pytester.path.joinpath("tests").mkdir(exist_ok=True)
        source = "\n".join(tests) + "\n" + textwrap.dedent(self.extra)
        self.pytester.path.joinpath("tests", "test_gate.py").write_text(source, encoding="utf-8")

    @property
    def results(self) -> Path:
        """The default results folder."""
        return self.pytester.path / "acceptance-results"

    def document(self) -> Any:
        """Read the result document."""
        return json.loads((self.results / "acceptance.json").read_text(encoding="utf-8"))

    def criterion(self, criterion_id: str, subject: str = "small") -> Any:
        """Read one criterion's entry."""
        [chosen] = [entry for entry in self.document()["subjects"] if entry["name"] == subject]
        [entry] = [entry for entry in chosen["criteria"] if entry["id"] == criterion_id]
        return entry

    def verdict(self, name: str = "verdict.json") -> Any:
        """Read a sealed verdict."""
        return json.loads((self.results / name).read_text(encoding="utf-8"))

    def outcomes(self, subject: str = "small") -> dict[str, str]:
        """Read every documented criterion's outcome."""
        return {id_: self.criterion(id_, subject)["outcome"] for id_ in DOCUMENTED}


@pytest.fixture
def passing() -> dict[str, dict[str, bool | float | Proportion]]:
    """Measurements that pass, by criterion."""
    return {id_: passing_measures(id_) for id_ in DOCUMENTED}


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    """A passing project; tests break it before running it."""
    return Project(pytester)
