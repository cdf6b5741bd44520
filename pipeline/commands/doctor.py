"""``verbosity doctor``."""

from __future__ import annotations

import argparse
import dataclasses
import json

from pipeline.commands import Command


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _run(arguments: argparse.Namespace) -> int:
    from pipeline.doctor import examine

    findings = examine()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(
                f"{finding.level:4}  {finding.subject}: {finding.detail}"
                + (f" -> {finding.remedy}" if finding.remedy else "")
            )
    return 1 if any(finding.level == "FAIL" for finding in findings) else 0


COMMAND = Command("say what this machine can run, and why not", _configure, _run)
