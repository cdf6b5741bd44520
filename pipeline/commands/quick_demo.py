"""``verbosity demo --quick``: the gate decides again about a healthy and a broken run that were recorded.

Nothing is trained and no model is loaded: ``verbosity judge`` computes the criteria from the answers that they kept.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.files import RECORDED_RUNS

EXPECTED = {"healthy": "ACCEPTED", "broken": "REJECTED"}
"""The verdict about each recording."""


def run_quick_demo(output: Path) -> int:
    """Judge the recordings; returns 0 if every verdict is the expected one.

    Args:
        output: Each recording's new results go into a folder of it, under ``quick``; earlier ones are replaced.

    Raises:
        PipelineError: A recording cannot be judged.
    """
    started, subjects = time.perf_counter(), {}
    for number, name in enumerate(EXPECTED, start=1):
        print(f"[{number}/{len(EXPECTED)}] judge the recorded answers of a {name} run", flush=True)
        subjects[name] = _judge(RECORDED_RUNS / name, output / "quick" / name)
    print(side_by_side(subjects))
    for name in EXPECTED:
        print(f"  report of the {name} run: {os.path.relpath(output)}/quick/{name}/report.html")
    print(f"  {time.perf_counter() - started:.0f} s; next: verbosity demo, which trains a model and judges it")
    decisions = {name: subject["decision"] for name, subject in subjects.items()}
    return 0 if decisions == EXPECTED else 1


def _judge(recording: Path, folder: Path) -> dict[str, Any]:
    """The subject of a recording, judged in a process of its own: the pipeline does not know the gate."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pipeline.cli", "judge", str(recording), "--output", str(folder)]
    judged = subprocess.run(command, check=False, capture_output=True, text=True)
    written = folder / "acceptance.json"
    if not written.is_file():
        raise PipelineError(f"{recording}: cannot be judged: {judged.stderr.strip() or judged.stdout.strip()}")
    (subject,) = json.loads(written.read_text(encoding="utf-8"))["subjects"]
    return dict(subject)


def side_by_side(subjects: Mapping[str, Mapping[str, Any]]) -> str:
    """The outcomes of every criterion, the verdicts, and why a subject was not accepted."""
    outcomes = {
        name: {criterion["id"]: criterion["outcome"] for criterion in subject["criteria"]}
        for name, subject in subjects.items()
    }
    criteria = dict.fromkeys(criterion for of in outcomes.values() for criterion in of)
    rows = [["criterion", *subjects]]
    rows += [[criterion, *(of.get(criterion, "") for of in outcomes.values())] for criterion in criteria]
    rows.append(["verdict", *(subject["decision"] for subject in subjects.values())])
    lines = ["".join(f"{cell:<30}" for cell in row).rstrip() for row in rows]
    for name, subject in subjects.items():
        if subject["decision"] != "ACCEPTED":
            lines.append(f"why the {name} run is {subject['decision']}:")
            failed = [criterion for criterion in subject["criteria"] if criterion["outcome"] == "FAIL"]
            lines += [f"  {criterion['id']}: {criterion['reason']}" for criterion in failed]
    return "\n".join(lines)
