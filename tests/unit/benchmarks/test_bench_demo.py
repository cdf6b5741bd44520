from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.bench_demo import summarise, to_markdown
from pipeline.cli import main
from pipeline.commands import demo
from pipeline.commands.demo import _ending
from pipeline.training.train import TrainingRequest


def finished_demo(folder: Path, decision: str = "ACCEPTED") -> Path:
    criteria = [
        {
            "id": "style.token_separation",
            "outcome": "PASS",
            "measurements": {
                "terse_median_tokens": 25.0,
                "verbose_median_tokens": 150.0,
                "withheld_cpu_share": 0.0421,
            },
            "bounds": [
                {"measure": "terse_median_tokens", "limit": "< 50 tokens"},
                {"measure": "verbose_median_tokens", "limit": "> 80 tokens"},
            ],
        },
        {"id": "deployment.under_load", "outcome": "FAIL", "measurements": {}, "bounds": []},
    ]
    provenance = {"git_commit": "c0ffee", "cpu_count": 2, "doctor": {"level": "OK"}}
    document = {
        "provenance": provenance,
        "subjects": [{"name": "smollm2-135m", "decision": decision, "criteria": criteria}],
    }
    (folder / "acceptance.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "stages.json").write_text(json.dumps({"prepare": 1.04, "train": 2.0}), encoding="utf-8")
    (folder / "run").mkdir()
    record = {"status": "completed", "examples_per_s": 4.567, "peak_memory": {"rss_gib": 2.0}}
    (folder / "run" / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_the_figures_are_those_of_the_demos_files(tmp_path: Path) -> None:
    figures = summarise(finished_demo(tmp_path, "REJECTED"))
    assert figures["stages_s"] == {"prepare": 1.0, "train": 2.0}
    assert (figures["duration_s"], figures["examples_per_s"]) == (3.0, 4.57)
    assert (figures["decision"], figures["passed_count"], figures["criterion_count"]) == ("REJECTED", 1, 2)
    assert figures["provenance"] == {"git_commit": "c0ffee", "cpu_count": 2}, "the machine that judged"
    assert figures["withheld_cpu_share_max"] == 0.042
    table = " ".join(to_markdown(figures).split())
    assert "| adapter trained | 2 |" in table
    assert "| **together: REJECTED** | **3** |" in table


def test_the_last_lines_say_verdict_figures_report_and_what_next(tmp_path: Path) -> None:
    verdict, terse, verbose, report, following = _ending(finished_demo(tmp_path), 605).splitlines()
    assert verdict == "smollm2-135m: ACCEPTED in 10 min 05 s"
    assert "25 tokens (must be < 50 tokens)" in terse
    assert "150 tokens (must be > 80 tokens)" in verbose
    assert report.endswith("/report.html")
    assert "verbosity generate --run " in following


def test_without_a_result_there_is_no_verdict(tmp_path: Path) -> None:
    assert "no verdict" in _ending(tmp_path, 605)


Demo = Callable[..., int]


@pytest.fixture
def run_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """Runs the command with a training and an acceptance that take no time; returns its exit status."""

    def run(status: int, accept: Callable[[Path], object], train: Callable[[Path], object] = Path.mkdir) -> int:
        def acceptance(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
            assert command[3:] == ["accept", "--run", str(tmp_path / "run"), "--output", str(tmp_path)]
            accept(tmp_path)
            return subprocess.CompletedProcess(command, status)

        def training(request: TrainingRequest) -> None:
            assert (request.target.name, request.preset.name) == ("tiny-mistral", "lean")
            train(request.output)

        with monkeypatch.context() as patch:
            patch.setattr(demo, "base_model_folder", lambda target: tmp_path)
            patch.setattr("pipeline.training.train.train", training)
            patch.setattr(subprocess, "run", acceptance)
            return main(["demo", "--target", "tiny-mistral", "--output", str(tmp_path)])

    return run


def write_verdict(folder: Path) -> None:
    (folder / "run").rmdir()
    finished_demo(folder, "REJECTED")


def test_the_demo_ends_with_the_verdict_and_the_exit_status_of_the_acceptance(
    run_demo: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_demo(10, write_verdict) == 10
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines[:6]] == ["[1/3]", "[1/3]", "[2/3]", "[2/3]", "[3/3]", "[3/3]"]
    assert re.search(r"style adapter: usually \d+ min \d\d s on two cores$", lines[2])
    assert lines[6].startswith("smollm2-135m: REJECTED in ")
    assert json.loads((tmp_path / "stages.json").read_text()).keys() == {"prepare", "train", "accept"}


def test_an_earlier_verdict_does_not_stand_for_an_acceptance_that_died(
    run_demo: Demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_demo(tmp_path)
    assert run_demo(139, lambda folder: None) == 139
    output = capsys.readouterr().out
    assert "no verdict: the acceptance ended before it wrote one" in output
    assert "ACCEPTED" not in output


@pytest.mark.parametrize(("status", "resumed"), [("completed", False), ("stopped", True)])
def test_an_unfinished_run_is_resumed_and_a_completed_one_is_trained_again(
    status: str, resumed: bool, run_demo: Demo, tmp_path: Path
) -> None:
    finished_demo(tmp_path)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"status": status}), encoding="utf-8")
    found: list[bool] = []
    assert run_demo(0, lambda folder: None, lambda run: found.append((run / "run.json").exists())) == 0
    assert found == [resumed]
