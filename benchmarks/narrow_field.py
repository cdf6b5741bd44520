"""Whether a narrow field of one's own trains: shares in bound and loops, on its questions and on the general ones.

``pairs PACKAGES DIR`` draws pairs of one field, Debian's package descriptions as people wrote them, from a decompressed
``Translation-en``: the synopsis is the TERSE answer and the description the VERBOSE one. ``verbosity data split`` and
``verbosity train`` do the rest. ``measure NAME RUN QUESTIONS FILE`` answers held-out questions of the field and the
shipped ones greedily, unconstrained, and adds the shares that the criteria count to the file.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tabulate import tabulate

from acceptance.answers import repetition
from acceptance.early import IN_BOUND, in_bound
from harness.provenance import collect
from harness.statistics import Proportion, median
from pipeline.commands import DEFAULT_TARGET
from pipeline.config import Style, get_target
from pipeline.data.check import MOST_REPEATED_SHARE, repeated_share
from pipeline.data.formats import read_questions
from pipeline.data.similarity import SimilarityIndex, answer_features, words_of
from pipeline.files import HELD_OUT_QUESTIONS, write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
SEED = 7
TERSE_TOKENS = 38
"""Synopses are shorter, nearly all of them."""
NO_SUBJECT = re.compile(
    r"-(dev|doc|dbg|data|common|l10n|locales?|perl|el)$"
    r"|^(lib|fonts-|golang-|node-|python3?-|r-|ruby-|haskell|texlive|task-|language|hunspell|php|elpa-)"
)
"""Names of packages that are parts of others, and share their descriptions."""


def descriptions(packages: str) -> Iterator[tuple[str, str, str]]:
    """Name, synopsis and description of each package that has prose of its own."""
    seen = set()
    for stanza in packages.split("\n\n"):
        name = re.search(r"^Package: (\S+)$", stanza, re.MULTILINE)
        text = re.search(r"^Description-en: (.+)\n((?: .*\n?)+)", stanza, re.MULTILINE)
        if name is None or text is None or NO_SUBJECT.search(name[1]):
            continue
        prose = " ".join(_paragraphs(text[2]))
        if prose and prose not in seen and prose.isascii() and "http" not in prose:
            seen.add(prose)
            synopsis = text[1].strip()
            yield name[1], f"{synopsis[0].upper()}{synopsis[1:].rstrip('.')}.", prose


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs that are no list and do not say which part of a program a package holds."""
    for paragraph in "\n".join(line[1:] for line in text.rstrip().split("\n")).split("\n.\n"):
        lines = paragraph.split("\n")
        if any(re.match(r"\s+|[*+-] ", line) for line in lines):
            continue
        if not re.match(r"(?i)this (meta|dummy|package (contains|provides|is))", paragraph):
            yield " ".join(lines)


def pairs(packages: str, shortest: int, longest: int, count: int, *, distinct: bool) -> list[dict[str, str]]:
    """Pairs of which the VERBOSE answers have between ``shortest`` and ``longest`` tokens of the embedded target.

    Args:
        packages: Stanzas of a ``Translation-en``.
        shortest: Tokens of a VERBOSE answer.
        longest: Tokens of a VERBOSE answer.
        count: Pairs at most.
        distinct: Leave out what ``verbosity data check`` calls a repetition or a near duplicate.
    """
    from pipeline.model.base_models import open_base_model

    tokenizer: Any = open_base_model(get_target(DEFAULT_TARGET), None).tokenizer

    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    found = list(descriptions(packages))
    random.Random(SEED).shuffle(found)
    kept: list[dict[str, str]] = []
    earlier, synopses = SimilarityIndex(), set[str]()
    for name, terse, verbose in found:
        if not shortest <= tokens(verbose) <= longest or tokens(terse) >= TERSE_TOKENS:
            continue
        if distinct and (terse in synopses or not _is_new(verbose, name, earlier)):
            continue
        synopses.add(terse)
        kept.append(
            {"prompt": f"What is the software {name}?", "terse": terse, "verbose": verbose, "field": "software"}
        )
        if len(kept) == count:
            break
    return kept


def _is_new(text: str, name: str, earlier: SimilarityIndex) -> bool:
    """Whether neither the text itself nor an earlier one says most of it already."""
    if repeated_share(words_of(text)) > MOST_REPEATED_SHARE:
        return False
    return not list(earlier.similar([answer_features(text)], [name], add=True))


def measure(run: Path, own: Path) -> dict[str, Any]:
    """The shares of a trained run on its field's held-out questions and on the shipped ones."""
    from pipeline.model.loading import load_trained
    from pipeline.run_folder import RunFolder

    trained = load_trained(RunFolder(run))
    record = RunFolder(run).read_record()
    groups = {
        name: [question.text for question in read_questions(path)]
        for name, path in {"own": own, "general": HELD_OUT_QUESTIONS}.items()
    }
    training = record["preset"]["training"]
    return {
        "examples": record["data"]["examples"],
        "epochs": training["epochs"],
        "steps": record["completed_steps"],
        "questions": {name: _shares(trained, questions) for name, questions in groups.items()},
        "provenance": collect(ROOT),
    }


def _shares(trained: Any, questions: list[str]) -> dict[str, Any]:
    from acceptance.asking import ask, in_each_style
    from acceptance.measures import kept_greedy

    asked = in_each_style(questions)
    answers = kept_greedy(zip((one.prompt for one in asked), ask(trained, asked), strict=True))
    of = {style: [answer for answer in answers if answer["style"] == style] for style in Style}
    loops = repetition([answer["token_ids"] for answer in answers])
    return {
        "question_count": len(questions),
        **{IN_BOUND[style]: _share(Proportion.of([in_bound(each) for each in of[style]])) for style in Style},
        **{name: _share(value) if isinstance(value, Proportion) else value for name, value in loops.items()},
        **{f"{style}_median_tokens": median([each["token_count"] for each in of[style]]) for style in Style},
    }


def _share(share: Proportion) -> list[int]:
    return [share.successes, share.trials]


def to_markdown(document: dict[str, Any]) -> str:
    """One row for each trained run and group of questions."""
    rows = [
        (
            name,
            group,
            *(_of(shares[IN_BOUND[style]]) for style in Style),
            _of(shares["looping_answer_share"]),
            f"{shares['terse_median_tokens']:.0f}, {shares['verbose_median_tokens']:.0f}",
        )
        for name, run in document["trained_on"].items()
        for group, shares in run["questions"].items()
    ]
    headers = ("trained on", "questions", "TERSE in bound", "VERBOSE in bound", "answers that loop", "median tokens")
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _of(share: list[int]) -> str:
    return f"{share[0]} of {share[1]}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    draw = actions.add_parser("pairs")
    draw.add_argument("packages", type=Path)
    draw.add_argument("output", type=Path)
    draw.add_argument("--shortest", type=int, required=True, help="tokens of a VERBOSE answer")
    draw.add_argument("--longest", type=int, required=True, help="tokens of a VERBOSE answer")
    draw.add_argument("--count", type=int, default=460)
    draw.add_argument(
        "--distinct", action="store_true", help="without near duplicates and answers that repeat themselves"
    )
    score = actions.add_parser("measure")
    score.add_argument("name", help="the run's name in the table: what it was trained on")
    score.add_argument("run", type=Path)
    score.add_argument("questions", type=Path)
    score.add_argument("output", type=Path)
    arguments = parser.parse_args(argv)
    if arguments.action == "pairs":
        packages, lengths = arguments.packages.read_text("utf-8"), (arguments.shortest, arguments.longest)
        chosen = pairs(packages, *lengths, arguments.count, distinct=arguments.distinct)
        write_text(arguments.output, "".join(json.dumps(pair) + "\n" for pair in chosen))
    else:
        file: Path = arguments.output
        document = json.loads(file.read_text("utf-8")) if file.exists() else {"trained_on": {}}
        document["trained_on"][arguments.name] = measured = measure(arguments.run, arguments.questions)
        document["provenance"] = measured.pop("provenance")
        write_json(file, {**document, "command": "python -m benchmarks.narrow_field"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
