"""``verbosity doctor``."""

from __future__ import annotations

import argparse
import json

from pipeline.commands import Command


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _run(arguments: argparse.Namespace) -> int:
    from pipeline.doctor.examine import examine

    report = examine()
    if arguments.json:
        print(json.dumps(report.describe(), indent=2))
    else:
        print(*report.findings, "", report.summary, sep="\n")
    return 1 if report.level == "FAIL" else 0


COMMAND = Command("report what this machine can run and why not; exit status 1 if a check fails", _configure, _run)
