"""``verbosity demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands import DEFAULT_TARGET, Command
from pipeline.config import TARGETS, get_target


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", choices=tuple(TARGETS), default=DEFAULT_TARGET, help="base model (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("demo-results"), metavar="DIR", help="default: %(default)s")


def _run(arguments: argparse.Namespace) -> int:
    from pipeline.demo import run_demo

    return run_demo(get_target(arguments.target), arguments.output)


COMMAND = Command("the main job: train the embedded model, accept it, show the verdict", _configure, _run, extra="demo")
