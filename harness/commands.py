"""The harness's subcommand of ``verbosity``, found through the entry-point group ``verbosity.commands``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_REGRESSED = 1
_REFUSED = 2


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand: its help, its arguments, its function (which returns the exit status), and the extra it needs.

    Attributes:
        extra: The project's extra with the packages that the command imports.
    """

    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    extra: str


def _configure_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", type=Path, metavar="A", help="acceptance.json of the earlier run, or its folder")
    parser.add_argument("after", type=Path, metavar="B", help="acceptance.json of the later run, or its folder")


def _compare(arguments: argparse.Namespace) -> int:
    # Imported here, so that only this command pays for scipy and jsonschema, and before any file is read, so that a
    # missing one is reported whatever the files hold.
    import scipy.stats  # noqa: F401

    from harness.report.changes import changes_markdown
    from harness.report.compare_runs import IncomparableRunsError, compare
    from harness.report.schema import DocumentError, read_document

    try:
        comparison = compare(read_document(arguments.before), read_document(arguments.after))
    except (DocumentError, IncomparableRunsError) as error:
        print(f"verbosity compare: {error}", file=sys.stderr)
        return _REFUSED
    print("# Acceptance runs compared\n")
    print(changes_markdown(comparison.as_document()), end="")
    return _REGRESSED if comparison.has_regression else 0


COMPARE = Command(
    "compare two acceptance runs; exit status 0: no regression, 1: a regression, 2: not comparable",
    _configure_compare,
    _compare,
    extra="report",
)
