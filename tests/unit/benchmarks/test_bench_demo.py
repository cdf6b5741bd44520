from __future__ import annotations

import json
from pathlib import Path

from benchmarks.bench_demo import summarise, to_markdown
from pipeline.commands.demo import _ending


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
    assert "| adapter trained | 2 |" in to_markdown(figures)
    assert "| **together: REJECTED** | **3** |" in to_markdown(figures)


def test_the_last_lines_say_verdict_figures_report_and_what_next(tmp_path: Path) -> None:
    verdict, terse, verbose, report, following = _ending(finished_demo(tmp_path), 605).splitlines()
    assert verdict == "smollm2-135m: ACCEPTED in 10 min 05 s"
    assert "25 tokens (must be < 50 tokens)" in terse
    assert "150 tokens (must be > 80 tokens)" in verbose
    assert report.endswith("/report.html")
    assert "verbosity generate --run " in following


def test_without_a_result_there_is_no_verdict(tmp_path: Path) -> None:
    assert "no verdict" in _ending(tmp_path, 605)
