"""A running server judged beside the run that it is said to serve: the run's model reads its answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from acceptance.processes import ServerProcess
from pipeline.run_folder import RunFolder
from tests.smoke.gate import acceptance, results
from tests.smoke.wheel import installed
from tests.unit.pipeline.service.fakes import Served, listening

SERVED = "deployment.served_answers"


def outside_share(folder: Path, url: str, run: RunFolder) -> float:
    """Share of the served tokens that the run's model would not have sampled."""
    chosen = ("-m", "deployment", "-k", "served_answers", "--acceptance-dir", str(folder))
    acceptance(*chosen, "--endpoint", url, "--run-dir", str(run.path))
    assert not list(folder.rglob("verdict.json")), "of the run nothing but its server was judged"
    measured = results(folder, url.removeprefix("http://"))[SERVED]["measurements"]
    assert measured["answer_count"] >= 12
    share: float = measured["outside_token_count"] / measured["token_count"]
    return share


@pytest.mark.slow
def test_a_server_of_the_run_is_told_from_another(tiny_run: RunFolder, tmp_path: Path) -> None:
    with ServerProcess(["--run", str(tiny_run.path)], tmp_path / "server.log") as server:
        assert server.url
        # Nobody writes as random weights do, so a few words are read with other tokens than they were made of.
        assert outside_share(tmp_path / "own", server.url, tiny_run) < 0.1
    with listening(Served().app) as url:
        assert outside_share(tmp_path / "other", url, tiny_run) > 0.5


@pytest.mark.slow
def test_the_run_that_an_endpoint_serves_is_named_beside_it(site: Path, tiny_run: RunFolder, tmp_path: Path) -> None:
    asked = ("--endpoint", "http://127.0.0.1:9", "--run", str(tiny_run.path))
    judged = installed(site, tmp_path, "pipeline.cli", "accept", *asked)
    assert judged.returncode == 10, judged.stdout + judged.stderr
    assert results(tmp_path / "acceptance-results", "127.0.0.1:9")[SERVED]["outcome"] != "PASS"


def test_nothing_to_judge_is_one_line(site: Path, tmp_path: Path) -> None:
    refused = installed(site, tmp_path, "pipeline.cli", "accept")
    assert refused.returncode == 1
    assert "nothing to judge: name --run DIR, --endpoint URL or both." in refused.stderr
