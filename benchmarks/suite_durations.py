"""How long the test commands take, where the time goes, and which share of the lines they run.

``make test-durations`` runs each command once after the install, then the complete suite under coverage, and writes
``durations.json``. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.files import write_text_atomically
from harness.provenance import collect

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("lint", "test", "test-all", "test-golden")
"""Make targets. ``.ci/run`` begins with the last two; lint is a part of the two in the middle."""
SLOWEST_FILE_COUNT = 12


def run_make(target: str, *pytest_options: str) -> tuple[float, int]:
    """Seconds and exit status of a make target."""
    command = ["make", target, f"PYTEST_OPTIONS={' '.join(pytest_options)}"]
    started = time.perf_counter()
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    return time.perf_counter() - started, status


def summarise_junit(text: str) -> dict[str, Any]:
    """Counts of a JUnit report and the seconds of the slowest test files, summed over workers."""
    suites = list(ElementTree.fromstring(text).iter("testsuite"))
    counts = {
        name: sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    }
    seconds: Counter[str] = Counter()
    for suite in suites:
        for case in suite.iter("testcase"):
            seconds[case.get("classname", "")] += float(case.get("time", 0))  # type: ignore[assignment]
    slowest = {name: round(value, 1) for name, value in seconds.most_common(SLOWEST_FILE_COUNT)}
    return {"counts": counts, "slowest_files_s": slowest}


def summarise_coverage(text: str) -> dict[str, Any]:
    """The totals of coverage's JSON report."""
    totals = json.loads(text)["totals"]
    return {
        "statement_count": totals["num_statements"],
        "missed_count": totals["missing_lines"],
        "covered_percent": round(totals["percent_covered"], 2),
    }


def summarise_log(text: str) -> dict[str, Any]:
    """What pytest's last line says: its counts and seconds.

    Raises:
        ValueError: The text does not end as pytest's output does.
    """
    found = re.findall(r"^=* ?((?:\d+ \w+,? ?)+) in ([\d.]+)s", text, flags=re.MULTILINE)
    if not found:
        raise ValueError("no summary line of pytest, such as '3 failed, 9 passed in 1.00s'")
    counts, seconds = found[-1]
    return {
        "counts": {name: int(count) for count, name in re.findall(r"(\d+) (\w+)", counts)},
        "duration_s": float(seconds),
    }


def measure(target: str, folder: Path) -> dict[str, Any]:
    """Run one command and summarise it."""
    report = folder / f"{target}.xml"
    duration_s, status = run_make(target, f"--junitxml={report}")
    figures = {"command": f"make {target}", "duration_s": round(duration_s, 1), "exit_status": status}
    return {**figures, **(summarise_junit(report.read_text(encoding="utf-8")) if report.exists() else {})}


def measure_coverage(folder: Path) -> dict[str, Any]:
    """Lines of ``pipeline`` and ``harness`` that the complete suite runs."""
    report = folder / "coverage.json"
    duration_s, status = run_make("test-all", "--cov", "--cov-report=", f"--cov-report=json:{report}")
    figures = {
        "command": "make test-all PYTEST_OPTIONS=--cov",
        "duration_s": round(duration_s, 1),
        "exit_status": status,
    }
    return {**figures, **summarise_coverage(report.read_text(encoding="utf-8"))}


def to_markdown(document: dict[str, Any]) -> str:
    """How long each command takes, and which share of the lines the tests run, with an earlier commit's."""
    before, covered = document["before"], document["coverage"]
    rows = [(f"`pytest`, serial, at {before['commit'][:7]}", _tests(before["counts"]), f"{before['duration_s']:.0f} s")]
    for entry in document["commands"]:
        counts = entry.get("counts")
        bad = counts["failures"] + counts["errors"] if counts else 0
        ran = {"passed": counts["tests"] - counts["skipped"] - bad, "failed": bad} if counts else {}
        rows.append((f"`{entry['command']}`", _tests(ran), f"{entry['duration_s']:.0f} s"))
    lines = ", ".join(
        f"{when} {share['covered_percent']:.2f} % of {share['statement_count']:,} statements"
        for when, share in (("before", before["coverage"]), ("now", covered))
    )
    body = tabulate(rows, ("command", "tests", "duration"), tablefmt="github", disable_numparse=True)
    return f"{body}\n\nLines of `pipeline` and `harness` that run: {lines}."


def _tests(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[kind]:,} {kind}" for kind in ("passed", "failed") if counts.get(kind))


def main() -> None:
    """Measure the commands and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of durations.json")
    parser.add_argument("--commands", nargs="*", choices=COMMANDS, default=COMMANDS, help="what to time")
    parser.add_argument("--load", default="idle", help="what else the machine did, in words")
    parser.add_argument("--before-commit", help="an earlier commit to compare with")
    parser.add_argument("--before-log", type=Path, help="pytest's output there")
    parser.add_argument("--before-coverage", type=Path, help="coverage's JSON report there")
    options = parser.parse_args()
    document: dict[str, Any] = {"command": "make test-durations", "provenance": collect(ROOT), "load": options.load}
    if options.before_commit:
        document["before"] = {
            "commit": options.before_commit,
            **summarise_log(options.before_log.read_text(encoding="utf-8")),
            "coverage": summarise_coverage(options.before_coverage.read_text(encoding="utf-8")),
        }
    with tempfile.TemporaryDirectory() as name:
        document["commands"] = [measure(target, Path(name)) for target in options.commands]
        document["coverage"] = measure_coverage(Path(name))
    write_text_atomically(options.output / "durations.json", json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
