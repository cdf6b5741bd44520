"""The composition of a data set and whether it can teach two styles: the figures behind ``verbosity data check``.

Rows that training would refuse end the check with the same error. Everything else found is a weakness: such a file can
be trained on, but is likely to teach something other than the style, or to make the evaluation look too good.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.config import Style
from pipeline.data.confidence import chance_to_hold, judged_questions
from pipeline.data.formats import Example, Question, in_batches
from pipeline.data.prompts import BARE_REMEDY, LARGEST_BARE_SHARE, LOOKED_AT, bare_share
from pipeline.data.similarity import NearDuplicate, SimilarityIndex, answer_features, question_features, words_of
from pipeline.data.source import Problems
from pipeline.data.style import (
    CLEAR_SHARE,
    STYLE_KEYWORDS,
    TERSE_LIMIT_TOKENS,
    VERBOSE_FLOOR_TOKENS,
    find_keywords,
    is_clear_of_bound,
    length_fits,
)
from pipeline.files import sha256_of_text

AnswerLengths = Callable[[Sequence[Example], Problems], list[int]]
"""Returns the answers' token counts under one tokenizer; reports the examples that training would refuse."""

LEAST_CHANCE = 0.5
MOST_REPEATED_SHARE = 0.10
"""Of an answer's four-word sequences; the criterion's limit of ``seq_rep_4_mean``."""
REPEATED_WORDS = 4
LARGEST_SUBJECT_SHARE = 0.10
SMALLEST_STYLE_SHARE = 0.40
SMALLEST_KEYWORD_SHARE = 0.30
LARGEST_OPENING_SHARE = 0.02
OPENING_WORDS = 4
SHOWN_PLACES = 10
_FORMS = ("compare", "why", "how", "should", "what")
_FORM_WORDS = re.compile(
    r"\b(?:(?P<compare>compar\w+|differ\w*|versus|vs)|(?P<why>why)|(?P<how>how)|(?P<should>should|worth)"
    r"|(?P<what>what|which|who|when|where))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class PropertyCheck:
    """The check of one property that a data set should have.

    Attributes:
        name: The property.
        verdict: FAIL is a weakness; N/A means that the data has nothing to measure.
        measured: The measurement, in words.
        limit: What the measurement must satisfy, in words.
        places: The first violations, by file and line where they have one.
    """

    name: str
    verdict: Literal["PASS", "FAIL", "N/A"]
    measured: str
    limit: str
    places: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Tally:
    """Figures collected in one pass; its size grows with the number of examples, not with their text."""

    subjects: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    keywords: dict[Style, Counter[str]] = field(default_factory=lambda: {style: Counter() for style in Style})
    forms: Counter[str] = field(default_factory=Counter)
    openings: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, dict[Style, list[int]]] = field(default_factory=dict)
    outside: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    near_bound: dict[str, dict[Style, list[str]]] = field(default_factory=dict)
    repeating_answers: list[str] = field(default_factory=list)
    repeated_answers: list[str] = field(default_factory=list)
    near_answers: list[NearDuplicate] = field(default_factory=list)
    near_questions: list[NearDuplicate] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)

    def count(self, style: Style) -> int:
        return self.keywords[style].total()


def check_examples(
    examples: Iterable[Example], held_out: Sequence[Question], tokenizers: Mapping[str, AnswerLengths]
) -> dict[str, Any]:
    """Measure and judge a data set.

    Args:
        examples: The data, read once.
        held_out: Questions of the evaluation, none of which may be in the data.
        tokenizers: Token counters by the tokenizer's name.

    Returns:
        JSON values: counts, lengths in tokens and ``findings``.

    Raises:
        PipelineError: Training would refuse an example.
    """
    problems = Problems()
    tally = _Tally(
        lengths={name: {style: [] for style in Style} for name in tokenizers},
        near_bound={name: {style: [] for style in Style} for name in tokenizers},
    )
    answers, seen_answers = SimilarityIndex(), dict[str, str]()
    questions = {style: SimilarityIndex() for style in Style}
    for batch in in_batches(examples):
        _tally_lengths(tally, batch, tokenizers, problems)
        for example in batch:
            _tally_words(tally, example, seen_answers)
        places = [f"{example.origin} ({example.style})" for example in batch]
        tally.near_answers += answers.similar(
            [answer_features(example.completion) for example in batch], places, add=True
        )
        for style, index in questions.items():
            same = [(e.words, place) for e, place in zip(batch, places, strict=True) if e.style is style]
            features = [question_features(words) for words, _ in same]
            tally.near_questions += index.similar(features, [place for _, place in same], add=True)
    problems.raise_any()
    leaks = [
        leak
        for question in held_out
        for index in questions.values()
        for leak in index.similar([question_features(question.text)], [f"held out: {question.text}"], add=False)
    ]
    return _document(tally, held_out, leaks)


def _tally_lengths(
    tally: _Tally, batch: Sequence[Example], tokenizers: Mapping[str, AnswerLengths], problems: Problems
) -> None:
    for name, answer_lengths in tokenizers.items():
        lengths = answer_lengths(batch, problems)
        if problems.count:
            return
        for example, tokens in zip(batch, lengths, strict=True):
            tally.lengths[name][example.style].append(tokens)
            if not length_fits(example.style, tokens):
                tally.outside[name].append(f"{example.origin}: {example.style}, {tokens} tokens")
            if not is_clear_of_bound(example.style, tokens):
                tally.near_bound[name][example.style].append(f"{example.origin}: {example.style}, {tokens} tokens")


def _tally_words(tally: _Tally, example: Example, seen_answers: dict[str, str]) -> None:
    if len(tally.prompts) < LOOKED_AT:
        tally.prompts.append(example.words)
    tally.subjects[example.subject or "(none)"][example.style] += 1
    found = [word for words in find_keywords(example.words).values() for word in words]
    tally.keywords[example.style][found[0] if found else "(none)"] += 1
    matched = {match.lastgroup for match in _FORM_WORDS.finditer(example.words)}
    tally.forms[next((form for form in _FORMS if form in matched), "instruction")] += 1
    words = words_of(example.completion)
    repeated = repeated_share(words)
    if repeated > MOST_REPEATED_SHARE:
        tally.repeating_answers.append(f"{example.origin}: {repeated:.0%} of its {REPEATED_WORDS}-word sequences")
    if example.style is Style.VERBOSE:
        tally.openings[" ".join(words[:OPENING_WORDS])] += 1
    first = seen_answers.setdefault(sha256_of_text(*words), example.origin)
    if first != example.origin:
        tally.repeated_answers.append(f"{example.origin} repeats {first}")


def _document(tally: _Tally, held_out: Sequence[Question], leaks: list[NearDuplicate]) -> dict[str, Any]:
    findings = [
        _style_balance(tally),
        _subject_balance(tally),
        *(_keyword_balance(style, tally.keywords[style]) for style in Style),
        *(_lengths_in_bound(name, tally) for name in tally.lengths),
        *(
            _chance_of_lengths(name, style, tally, judged_questions(len(held_out)))
            for name in tally.lengths
            for style in Style
        ),
        _none_of("answers that repeat themselves", tally.repeating_answers),
        _none_of("repeated answers", tally.repeated_answers),
        _none_of("near-duplicate answers", [_pair(near) for near in tally.near_answers]),
        _none_of("near-duplicate questions", [_pair(near) for near in tally.near_questions]),
        _openings(tally),
        _bare_prompts(tally),
        _none_of("held-out questions among the data", [_pair(leak) for leak in leaks]),
    ]
    return {
        "examples": sum(tally.count(style) for style in Style),
        "held_out_questions": len(held_out),
        "subjects": {name: dict(sorted(counts.items())) for name, counts in sorted(tally.subjects.items())},
        "held_out_subjects": dict(sorted(Counter(question.subject or "(none)" for question in held_out).items())),
        "keywords": {style.value: dict(sorted(tally.keywords[style].items())) for style in Style},
        "question_forms": dict(sorted(tally.forms.items())),
        "answer_tokens": {
            name: {style.value: dict(sorted(Counter(counts).items())) for style, counts in by_style.items()}
            for name, by_style in tally.lengths.items()
        },
        "findings": [asdict(finding) for finding in findings],
    }


def _verdict(passed: bool) -> Literal["PASS", "FAIL"]:
    return "PASS" if passed else "FAIL"


def _style_balance(tally: _Tally) -> PropertyCheck:
    counts = {style: tally.count(style) for style in Style}
    smallest = min(counts.values()) / sum(counts.values())
    measured = ", ".join(f"{count} {style}" for style, count in counts.items())
    return PropertyCheck(
        "both styles", _verdict(smallest >= SMALLEST_STYLE_SHARE), measured, f"each at least {SMALLEST_STYLE_SHARE:.0%}"
    )


def _subject_balance(tally: _Tally) -> PropertyCheck:
    limit = f"none above {LARGEST_SUBJECT_SHARE:.0%}"
    if set(tally.subjects) == {"(none)"}:
        return PropertyCheck("fields", "N/A", "no row names one", limit)
    total = sum(counts.total() for counts in tally.subjects.values())
    name, counts = max(tally.subjects.items(), key=lambda item: item[1].total())
    share = counts.total() / total
    return PropertyCheck(
        "fields", _verdict(share <= LARGEST_SUBJECT_SHARE), f"{len(tally.subjects)}, largest {name} {share:.1%}", limit
    )


def _keyword_balance(style: Style, counts: Counter[str]) -> PropertyCheck:
    name, limit = f"{style} keywords", f"each at least {SMALLEST_KEYWORD_SHARE:.0%} of the prompts that have one"
    with_keyword = counts.total() - counts["(none)"]
    if not with_keyword:
        return PropertyCheck(name, "N/A", "no prompt has one", limit)
    smallest = min(counts[word] for word in STYLE_KEYWORDS[style]) / with_keyword
    measured = ", ".join(f"{counts[word]} {word}" for word in (*STYLE_KEYWORDS[style], "(none)"))
    return PropertyCheck(name, _verdict(smallest >= SMALLEST_KEYWORD_SHARE), measured, limit)


def _lengths_in_bound(name: str, tally: _Tally) -> PropertyCheck:
    spans = ", ".join(f"{style} {min(n)} to {max(n)}" for style, n in tally.lengths[name].items())
    return PropertyCheck(
        f"answer tokens, {name}",
        _verdict(not tally.outside[name]),
        spans,
        f"terse < {TERSE_LIMIT_TOKENS}, verbose > {VERBOSE_FLOOR_TOKENS}",
        tally.outside[name][:SHOWN_PLACES],
    )


def _chance_of_lengths(name: str, style: Style, tally: _Tally, questions: int) -> PropertyCheck:
    """Whether a model that learns these lengths, but not exactly, can hold the criterion."""
    near, total = tally.near_bound[name][style], len(tally.lengths[name][style])
    chance = chance_to_hold(1 - len(near) / total, questions)
    edge = f"under {CLEAR_SHARE * TERSE_LIMIT_TOKENS:.0f}"
    if style is Style.VERBOSE:
        edge = f"over {VERBOSE_FLOOR_TOKENS / CLEAR_SHARE:.0f}"
    passed = chance >= LEAST_CHANCE
    remedy = [] if passed else [f"make {len(near)} of {total} {style} answers {edge} tokens, or leave them out"]
    return PropertyCheck(
        f"{style} answers clear of the bound, {name}",
        _verdict(passed),
        f"{1 - len(near) / total:.0%} {edge} tokens: the criterion holds with a chance of {chance:.0%}",
        f"a chance of {LEAST_CHANCE:.0%} on {questions} questions",
        [*remedy, *near[:SHOWN_PLACES]] if not passed else [],
    )


def repeated_share(words: Sequence[str]) -> float:
    """The share of a text's sequences of four words that occurred in it before, 0 to 1 (seq-rep-4, of words)."""
    sequences = [tuple(words[start : start + REPEATED_WORDS]) for start in range(len(words) - REPEATED_WORDS + 1)]
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0


def _openings(tally: _Tally) -> PropertyCheck:
    total = tally.openings.total()
    shared = [(text, count) for text, count in tally.openings.most_common() if count > 1]
    at_fault = [f"{text!r} opens {count}" for text, count in shared if count / total > LARGEST_OPENING_SHARE]
    return PropertyCheck(
        f"shared {OPENING_WORDS}-word openings of verbose answers",
        _verdict(not at_fault),
        f"largest {max(tally.openings.values(), default=0)} of {total}",
        f"none above {LARGEST_OPENING_SHARE:.0%}",
        at_fault[:SHOWN_PLACES],
    )


def _bare_prompts(tally: _Tally) -> PropertyCheck:
    share, limit = bare_share(tally.prompts), f"at most {LARGEST_BARE_SHARE:.0%}"
    remedy = [BARE_REMEDY] if share > LARGEST_BARE_SHARE else []
    return PropertyCheck("prompts of a bare name", _verdict(not remedy), f"{share:.0%}", limit, remedy)


def _none_of(name: str, places: list[str]) -> PropertyCheck:
    return PropertyCheck(name, _verdict(not places), str(len(places)), "none", places[:SHOWN_PLACES])


def _pair(near: NearDuplicate) -> str:
    return f"{near.first} / {near.second}: {near.similarity:.2f}"
