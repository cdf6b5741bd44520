"""``verbosity judge``: decide about a run again from what it kept, without its model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands import Command

if TYPE_CHECKING:
    from harness.judge_again import JudgedAgain

_REFUSED = 2


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, metavar="RESULTS", help="acceptance.json of a run, or its folder")
    parser.add_argument(
        "--criteria", metavar="NAME", help="installed set to judge by (default: the one that the run was judged by)"
    )
    parser.add_argument("--run", type=Path, metavar="DIR", help="refuse answers that are not those of this run folder")
    parser.add_argument(
        "--questions", type=Path, metavar="FILE", help="refuse answers to other questions than those of this file"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder without results, for the new ones"
    )


def _run(arguments: argparse.Namespace) -> int:
    import jsonschema  # noqa: F401  # reported as missing here, whatever the files hold

    from harness.judge_again import JudgeAgainError, judge_again
    from harness.report.schema import DOCUMENT_NAME
    from harness.report.table import table_text
    from harness.results import write_results
    from harness.verdict import EXIT_CODES, Decision

    try:
        if (arguments.output / DOCUMENT_NAME).exists():
            raise JudgeAgainError(f"{arguments.output} holds results; name another folder with --output")
        again = judge_again(arguments.results, arguments.criteria)
        if arguments.run is not None:
            _require_answers_of(arguments.run, again)
        if arguments.questions is not None:
            _require_answers_to(arguments.questions, again)
    except ValueError as error:  # of the documents and answers, and of figures in them that contradict each other
        print(f"verbosity judge: {error}", file=sys.stderr)
        return _REFUSED
    write_results(again.document, again.answers, arguments.output, sealed=again.sealed)
    print(table_text(again.document))
    source = again.document["judged_again_from"]
    print(f"from kept answers: {', '.join(source['from_answers']) or 'none'}")
    print(f"from recorded measurements: {', '.join(source['from_measurements']) or 'none'}")
    for note in again.notes:
        print(f"note: {note}")
    print(f"report: {arguments.output / 'report.html'}")
    return EXIT_CODES[Decision(again.document["decision"])]


def _require_answers_of(run: Path, again: JudgedAgain) -> None:
    from harness.judge_again import JudgeAgainError
    from pipeline.release.fingerprint import run_identity
    from pipeline.run_folder import RunFolder

    expected = run_identity(RunFolder(run))
    for subject in again.document["subjects"]:
        recorded = subject["identity"]
        if differing := [name for name, value in expected.items() if recorded.get(name) != value]:
            raise JudgeAgainError(
                f"{subject['name']}: the answers are not those of {run}: {', '.join(differing)} differ;"
                " name the run that was judged"
            )


def _require_answers_to(questions: Path, again: JudgedAgain) -> None:
    from harness.judge_again import JudgeAgainError
    from harness.report.formatting import asked_questions
    from pipeline.data.discovery import data_file
    from pipeline.files import sha256_of

    asked = asked_questions(again.document)
    if asked.get("sha256") != sha256_of(data_file(questions)):
        named = f"{asked['count']} of {asked['file']}, sha256 {asked['sha256'][:12]}..." if asked else "not recorded"
        raise JudgeAgainError(
            f"the answers are not those to {questions}: the questions are {named}; name the file that was asked"
        )


JUDGE = Command(
    "judge a run again without its model; exit status 0: ACCEPTED, 10: REJECTED, 11: INCOMPLETE, 2: refused",
    _configure,
    _run,
    extra="report",
)
