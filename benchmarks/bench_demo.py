"""``make bench-demo``: how long each stage of ``make demo`` takes after the install, and its verdict.

Writes ``demo.json``. Run it on an idle machine; what other programs took meanwhile is recorded.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.files import write_text_atomically
from harness.machine import MachineWatch
from harness.provenance import collect
from pipeline.commands import DEFAULT_TARGET
from pipeline.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]


def run(work: Path, output: Path) -> int:
    """Run the demo in a folder of its own and write its times; returns its exit status."""
    origin = collect(ROOT)
    with MachineWatch() as watch:
        command = [sys.executable, "-m", "pipeline.cli", "demo", "--output", str(work)]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
    figures = {"command": "make bench-demo", "provenance": origin, "machine_use": dataclasses.asdict(watch.use)}
    text = json.dumps({**figures, "exit_status": status, **summarise(work)}, indent=1) + "\n"
    write_text_atomically(output / "demo.json", text)
    return status


def summarise(work: Path) -> dict[str, Any]:
    """Seconds of each stage, the rate of training, and the verdict, from the files of a finished demo."""
    stages = json.loads((work / "stages.json").read_text(encoding="utf-8"))
    (subject,) = json.loads((work / "acceptance.json").read_text(encoding="utf-8"))["subjects"]
    record = RunFolder(work / "run").read_record()
    outcomes = [criterion["outcome"] for criterion in subject["criteria"]]
    return {
        "target": DEFAULT_TARGET,
        "duration_s": round(sum(stages.values()), 1),
        "stages_s": {name: round(seconds, 1) for name, seconds in stages.items()},
        "examples_per_s": round(record["examples_per_s"], 2),
        "peak_memory": record["peak_memory"],
        "decision": subject["decision"],
        "criterion_count": len(outcomes),
        "passed_count": outcomes.count("PASS"),
    }


def main() -> int:
    """Measure; the exit status is the demo's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of demo.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        return run(Path(work), options.output)


if __name__ == "__main__":
    sys.exit(main())
