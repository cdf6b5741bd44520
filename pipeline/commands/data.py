"""``verbosity data check`` and ``verbosity data split``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from pipeline.commands import DEFAULT_TARGET, Command, chosen_target, target_arguments
from pipeline.config import PRESETS, TARGETS
from pipeline.files import HELD_OUT_QUESTIONS, TRAINING_DATA

CHECKED_TOKENIZERS: Mapping[str, str] = MappingProxyType({"Mistral v0.3": "tiny-mistral", "SmolLM2": DEFAULT_TARGET})
"""Tokenizers that ``data check`` counts with, and a target of each that needs no local weights."""


def _configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check", help="report a data set's composition and whether it can teach two styles; exit status 1 if not"
    )
    check.add_argument(
        "path",
        type=Path,
        nargs="?",
        default=TRAINING_DATA,
        metavar="PATH",
        help="JSONL file, plain or gzip, a folder of them, or a pipe (default: the shipped set)",
    )
    check.add_argument(
        "--held-out",
        type=Path,
        default=HELD_OUT_QUESTIONS,
        metavar="FILE",
        help="questions that must not be in the data (default: the shipped ones)",
    )
    check.add_argument(
        "--output", type=Path, metavar="DIR", help="write check.json, check.md and answer_tokens.svg there"
    )
    target_arguments(check, "whose tokenizer counts (default: those of Mistral and SmolLM2)")
    check.set_defaults(act=_check)
    split = actions.add_parser(
        "split", help="hold a share of the prompts out of the training, to judge the model on them"
    )
    split.add_argument(
        "path", type=Path, metavar="PATH", help="pairs: a JSONL file, plain or gzip, or a folder of them"
    )
    split.add_argument(
        "--share", type=float, default=0.1, help="share of the prompts to hold out (default: %(default)s)"
    )
    split.add_argument("--seed", type=int, default=42, metavar="N", help="which prompts (default: %(default)s)")
    split.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="write train.jsonl, questions.jsonl there"
    )
    split.set_defaults(act=_split)


def _run(arguments: argparse.Namespace) -> int:
    status: int = arguments.act(arguments)
    return status


def _split(arguments: argparse.Namespace) -> int:
    from pipeline.data.confidence import needed_questions
    from pipeline.data.questions import hold_out

    counts = hold_out(arguments.path, arguments.share, arguments.seed, arguments.output)
    print(f"{arguments.output}: {counts['examples']} examples to train on, {counts['questions']} questions to judge by")
    if counts["left_out"]:
        print(f"left out: {counts['left_out']} examples that ask nearly the same as a question")
    if counts["questions"] < (needed := needed_questions()):
        print(f"to be judged by, {needed} questions are needed; raise --share or add data")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from pipeline.data.check import check_examples
    from pipeline.data.encoding import answer_lengths
    from pipeline.data.formats import find_sources, read_questions
    from pipeline.data.report import describe_files, is_clean, to_markdown, write_report
    from pipeline.data.store import stream_with_progress
    from pipeline.model.base_models import open_for_planning

    sources = find_sources(arguments.path)
    max_tokens = PRESETS["lean"].training.max_sequence_tokens
    targets = {name: TARGETS[target] for name, target in CHECKED_TOKENIZERS.items()}
    if arguments.target or arguments.base_model:
        own = chosen_target(arguments)
        targets = {own.name: own}
    counters = {}
    for name, target in targets.items():
        with open_for_planning(target, arguments.base_model) as base:
            counters[name] = partial(answer_lengths, base.tokenizer, max_tokens)
    document = check_examples(stream_with_progress(sources), read_questions(arguments.held_out), counters)
    document = {"files": describe_files(sources), **document}
    print(to_markdown(document), end="")
    if arguments.output:
        write_report(document, arguments.output)
    return 0 if is_clean(document) else 1


COMMAND = Command(
    "check training data, the shipped set or your own, or hold questions out of it", _configure, _run, extra="train"
)
