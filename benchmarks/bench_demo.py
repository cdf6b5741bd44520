"""``make bench-demo``: how long each stage of ``make demo`` takes after the install, and its verdict.

Writes ``demo.json``, from what the demo itself leaves behind; ``--results`` records a demo that has ended. Run it on an
idle machine; how much other programs withheld is recorded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.files import write_text_atomically
from pipeline.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "make bench-demo"
STAGES = {"prepare": "base model prepared", "train": "adapter trained", "accept": "adapter and server judged"}


def summarise(work: Path) -> dict[str, Any]:
    """Seconds of each stage, the rate of training, the verdict and the machine, from the files of a finished demo.

    Raises:
        OSError: The demo did not come to its end.
    """
    stages = json.loads((work / "stages.json").read_text(encoding="utf-8"))
    document = json.loads((work / "acceptance.json").read_text(encoding="utf-8"))
    (subject,) = document["subjects"]
    record = RunFolder(work / "run").read_record()
    outcomes = [criterion["outcome"] for criterion in subject["criteria"]]
    withheld = [criterion["measurements"].get("withheld_cpu_share", 0.0) for criterion in subject["criteria"]]
    return {
        "command": COMMAND,
        "provenance": {name: value for name, value in document["provenance"].items() if name != "doctor"},
        "target": subject["name"],
        "duration_s": round(sum(stages.values()), 1),
        "stages_s": {name: round(seconds, 1) for name, seconds in stages.items()},
        "examples_per_s": round(record["examples_per_s"], 2),
        "peak_memory": record["peak_memory"],
        "decision": subject["decision"],
        "criterion_count": len(outcomes),
        "passed_count": outcomes.count("PASS"),
        "withheld_cpu_share_max": round(max(withheld), 3),
    }


def to_markdown(figures: Mapping[str, Any]) -> str:
    """The stages and what they took."""
    rows = [(STAGES[name], f"{seconds:.0f}") for name, seconds in figures["stages_s"].items()]
    rows.append((f"**together: {figures['decision']}**", f"**{figures['duration_s']:.0f}**"))
    return tabulate(rows, headers=("stage", "seconds"), tablefmt="github", disable_numparse=True) + "\n"


def main() -> int:
    """Measure or record; the exit status is the demo's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of demo.json")
    parser.add_argument("--results", type=Path, help="record this finished demo instead of running one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work, status = options.results or Path(folder), 0
        if options.results is None:
            command = [sys.executable, "-m", "pipeline.cli", "demo", "--output", folder]
            status = subprocess.run(command, cwd=ROOT, check=False).returncode
        write_text_atomically(options.output / "demo.json", json.dumps(summarise(work), indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
