"""A set of criteria of another model, in a project of its own: what docs/own-set.md shows, from the wheel alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.report.schema import read_document
from tests.smoke.pages import blocks, commands
from tests.smoke.wheel import ROOT, install, installed

PAGE = "own-set.md"
EXAMPLE = ROOT / "docs" / "examples" / "json_extraction"


@pytest.fixture(scope="module")
def sites(site: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path on which the wheel and the example's package are installed."""
    source, folder = tmp_path_factory.mktemp("example"), tmp_path_factory.mktemp("example-site")
    shutil.copy(EXAMPLE / "pyproject.toml", source)
    (source / "extraction_criteria.py").write_text(blocks(PAGE, "python")[0], encoding="utf-8")
    install(source, folder)
    return f"{folder}:{site}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The page's conftest.py and the example's tests; its criteria are installed."""
    (tmp_path / "conftest.py").write_text(blocks(PAGE, "python")[1], encoding="utf-8")
    shutil.copy(EXAMPLE / "test_extraction.py", tmp_path)
    return tmp_path


def judged(project: Path) -> dict[str, Any]:
    document = read_document(project / "acceptance-results")
    (subject,) = document["subjects"]
    assert (document["criteria_set"], subject["name"]) == ("json-extraction", "order-reader")
    return {criterion["id"]: criterion["outcome"] for criterion in subject["criteria"]}


def test_a_healthy_model_is_accepted_and_its_verdict_verified(project: Path, sites: str) -> None:
    (_, judge), (_, verify) = (commands(PAGE, f"pip install {what}") for what in ("'verbosity[report]'", "."))
    accepted = installed(sites, project, *judge, "-p", "no:cacheprovider")
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert judged(project) == {"answers.valid_json": "PASS", "answers.field_accuracy": "PASS"}
    assert "60 of 60" in (project / "acceptance-results" / "report.md").read_text(encoding="utf-8")
    verified = installed(sites, project, *verify)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert "accepts order-reader, whose identity was not compared" in verified.stdout
    # The criteria are the installed ones, not whatever the verdict came with.
    stranger = installed(sites.partition(":")[2], project, *verify)
    assert stranger.returncode == 1
    assert "criteria_set: no installed sets of criteria are called 'json-extraction'" in stranger.stdout


@pytest.mark.slow
def test_a_broken_model_is_rejected(project: Path, sites: str) -> None:
    rejected = installed(sites, project, "pytest", "-q", "-p", "no:cacheprovider", ORDERS_FAULT="1")
    assert rejected.returncode == 10, rejected.stdout + rejected.stderr
    assert judged(project) == {"answers.valid_json": "FAIL", "answers.field_accuracy": "FAIL"}
    assert "valid_share >= 0.95 at 95% confidence does not hold: measured 48 of 60" in rejected.stdout
    verified = installed(sites, project, "pipeline.cli", "verify", "acceptance-results/verdict.json", "--verdict-only")
    assert verified.stdout == "decision: REJECTED, not ACCEPTED\n"


@pytest.mark.slow
def test_too_few_orders_decide_nothing(project: Path, sites: str) -> None:
    tests = project / "test_extraction.py"
    tests.write_text(
        tests.read_text(encoding="utf-8")
        .replace("range(2, 12)", "range(2, 4)")
        .replace("range(11, 1, -1)", "range(3, 1, -1)")
    )
    assert installed(sites, project, "pytest", "-q", "-p", "no:cacheprovider").returncode == 10
    assert judged(project)["answers.field_accuracy"] == "UNDECIDED"


def test_a_criterion_of_the_set_without_a_test_is_refused(project: Path, sites: str) -> None:
    tests = project / "test_extraction.py"
    tests.write_text(tests.read_text(encoding="utf-8").replace('@pytest.mark.criterion("answers.valid_json")\n', ""))
    refused = installed(sites, project, "pytest", "-q", "-p", "no:cacheprovider")
    assert refused.returncode == 4
    assert "criteria of the set json-extraction without a test" in refused.stderr
    assert "order-reader: answers.valid_json" in refused.stderr
