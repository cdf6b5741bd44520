"""When the acceptance suite's options are on the command line: where it is meant, and in nobody else's suite."""

from __future__ import annotations

from pathlib import Path

import pytest

import acceptance
from acceptance.plugin import _means_the_suite
from tests.unit.harness.conftest import run_in_processes

SUITE = Path(acceptance.__file__ or "").parent


@pytest.mark.parametrize(
    ("arguments", "inside", "meant"),
    [
        ((), True, True),
        (("tests/unit",), True, True),
        (("--pyargs", "acceptance"), False, True),
        (("acceptance",), False, True),  # as a worker of pytest-xdist gets it
        (("--pyargs", "acceptance.test_style::test_consistency"), False, True),
        ((str(SUITE / "test_style.py"),), False, True),
        ((), False, False),
        (("-q", "tests"), False, False),
        (("--pyargs", "acceptances"), False, False),
    ],
)
def test_where_the_suite_is_meant(arguments: tuple[str, ...], inside: bool, meant: bool, tmp_path: Path) -> None:
    folder = SUITE.parent / "docs" if inside else tmp_path
    assert _means_the_suite(pytest.Config.InvocationParams(args=arguments, plugins=None, dir=folder)) is meant


def test_a_folder_of_this_name_in_another_project_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "acceptance").mkdir()
    given = pytest.Config.InvocationParams(args=("acceptance",), plugins=None, dir=tmp_path)
    assert not _means_the_suite(given)


def test_another_project_may_have_the_same_options(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("def pytest_addoption(parser):\n    parser.addoption('--endpoint')\n")
    pytester.makepyfile("def test_it(request):\n    assert request.config.getoption('--endpoint') == 'here'\n")
    pytester._monkeypatch.setenv("PYTEST_PLUGINS", "acceptance.plugin")
    result = run_in_processes(pytester, "--endpoint", "here")
    assert result.ret == 0, result.stderr.str()
