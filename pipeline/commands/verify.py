"""``verbosity verify``."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands import Command, base_arguments, trusted_key_argument
from pipeline.release.verify import check_verdict


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verdict", type=Path, metavar="FILE", help="verdict.json of an acceptance")
    parser.add_argument(
        "--adapter",
        type=Path,
        required=True,
        metavar="DIR",
        help="run folder, or the adapter folder inside it; run.json must be there",
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

    complaints = check_verdict(
        arguments.verdict,
        arguments.adapter,
        base_model=arguments.base_model,
        device=arguments.device,
        trusted_key=arguments.trust_key,
        note_environment=note if arguments.ignore_environment else None,
    )
    for complaint in complaints:
        print(complaint)
    if not complaints:
        print(f"OK: {arguments.verdict} accepts {arguments.adapter}")
    return 1 if complaints else 0


COMMAND = Command(
    "check whether a verdict covers an adapter; exit status 1 if not",
    _configure,
    _run,
    extra="train",
)
