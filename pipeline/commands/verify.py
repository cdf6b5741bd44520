"""``verbosity verify``."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands import Command, base_arguments, trusted_key_argument
from pipeline.release.verify import check_verdict, judged_again, read_verdict


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verdict", type=Path, metavar="FILE", help="verdict.json of an acceptance")
    covered = parser.add_mutually_exclusive_group(required=True)
    covered.add_argument(
        "--adapter",
        type=Path,
        metavar="DIR",
        help="run folder, or the adapter folder inside it; run.json must be there",
    )
    covered.add_argument(
        "--verdict-only",
        action="store_true",
        help="check seal, criteria and decision, not what was judged: for a server, or a model that is no run of ours",
    )
    base_arguments(parser)
    trusted_key_argument(parser)
    parser.add_argument(
        "--ignore-environment",
        action="store_true",
        help="print differences of device and packages as notes, so that a CPU machine can verify a GPU's verdict",
    )


def _run(arguments: argparse.Namespace) -> int:
    def note(difference: str) -> None:
        print(f"note: {difference}")

    if arguments.verdict_only:
        complaints = judged_again(arguments.verdict, arguments.trust_key)
        accepted = f"{read_verdict(arguments.verdict)['subject'].get('name')}, whose identity was not compared"
    else:
        complaints = check_verdict(
            arguments.verdict,
            arguments.adapter,
            base_model=arguments.base_model,
            device=arguments.device,
            trusted_key=arguments.trust_key,
            note_environment=note if arguments.ignore_environment else None,
        )
        accepted = str(arguments.adapter)
    for complaint in complaints:
        print(complaint)
    if not complaints:
        print(f"OK: {arguments.verdict} accepts {accepted}")
    return 1 if complaints else 0


COMMAND = Command(
    "check a verdict, and whether it covers an adapter; exit status 1 if not",
    _configure,
    _run,
    extra="train",
)
