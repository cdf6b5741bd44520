"""The three file formats of training data, and what makes a row unusable.

Every format has an optional key ``"field"``, the subject, for the figures of ``verbosity data check``; other keys are
ignored.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Style
from pipeline.data.source import Problems, data_files, read_objects
from pipeline.data.style import STYLE_KEYWORDS, detect_style, find_keywords, inject_token
from pipeline.errors import PipelineError
from pipeline.files import sha256_of_text

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Example:
    """One training example before tokenisation.

    Attributes:
        style: How long the answer is.
        words: The user's message, without the style token.
        completion: The answer.
        origin: Its place as ``file:line``.
        subject: The row's ``field``, if present.
    """

    style: Style
    words: str
    completion: str
    origin: str
    subject: str | None = None

    @property
    def prompt(self) -> str:
        """The user's message as the model sees it: style token, newline, message."""
        return inject_token(self.words, self.style)


class RowError(ValueError):
    """An unusable row; the message names the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Format:
    """One file format: its name, the keys that identify it, the examples per row and its parser."""

    name: str
    keys: frozenset[str]
    examples_per_row: int
    parse: Callable[[dict[str, Any]], Iterable[tuple[Style, str, str]]]


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file and its format, as recognised from the first row."""

    path: Path
    format: Format


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{where}: expected a non-empty string; write the text there.")
    if _SURROGATE.search(value):
        raise RowError(f"{where}: contains half a surrogate pair (\\ud800-\\udfff); write the complete character.")
    if found := _CONTROL.search(value):
        raise RowError(f"{where}: holds the control character U+{ord(found[0]):04X}; remove it.")
    for style in Style:
        if style.token in value:
            raise RowError(f"{where}: contains {style.token}; remove it, the pipeline puts it in front.")
    return value.strip()


def _style(row: Mapping[str, Any], words: str, where: str) -> Style:
    """The style that a row names or that its keywords ask for.

    Raises:
        RowError: The row names an unknown style, or style and keywords contradict each other.
    """
    named = row.get("style")
    if named is not None and (not isinstance(named, str) or named not in set(Style)):
        raise RowError(f"style: {named!r}; leave it out or use one of: {', '.join(Style)}.")
    found = find_keywords(words)
    if len(found) > 1:
        both = " and ".join(repr(keywords[0]) for keywords in found.values())
        raise RowError(f"{where}: asks for both styles ({both}); keep the keyword of one.")
    if named is not None and found and named not in found:
        raise RowError(f"{where}: says {_named(found)}, but the style is {named}; change one of them.")
    return detect_style(words) if named is None else Style(named)


def _named(found: Mapping[Style, list[str]]) -> str:
    """The first keyword found, quoted for a message."""
    return repr(next(iter(found.values()))[0])


def _parse_messages(row: dict[str, Any]) -> Iterator[tuple[Style, str, str]]:
    messages = row["messages"]
    if not isinstance(messages, list):
        raise RowError('messages: not a list; expected {"messages": [user, assistant]}.')
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    if "system" in roles:
        raise RowError(f"messages[{roles.index('system')}].role: a system message; the data has none, leave it out.")
    if len(messages) != 2:
        raise RowError(f"messages: {len(messages)} entries; one user and one assistant message are expected.")
    for index, role in enumerate(("user", "assistant")):
        if roles[index] != role:
            raise RowError(f'messages[{index}].role: expected "{role}"; a row is one user and one assistant message.')
    words = _text(messages[0].get("content"), "messages[0].content")
    yield _style(row, words, "messages[0].content"), words, _text(messages[1].get("content"), "messages[1].content")


def _parse_completion(row: dict[str, Any]) -> Iterator[tuple[Style, str, str]]:
    words = _text(row["prompt"], "prompt")
    yield _style(row, words, "prompt"), words, _text(row["completion"], "completion")


def _parse_pair(row: dict[str, Any]) -> Iterator[tuple[Style, str, str]]:
    words = _text(row["prompt"], "prompt")
    answers = {style: _text(row[style.value], style.value) for style in Style}
    if found := find_keywords(words):
        raise RowError(f"prompt: says {_named(found)}, but a pair answers it in both styles; leave the keyword out.")
    if answers[Style.TERSE] == answers[Style.VERBOSE]:
        raise RowError("verbose: the same text as terse; write a longer answer.")
    yield from ((style, words, answer) for style, answer in answers.items())


FORMATS: tuple[Format, ...] = (
    Format("chat messages", frozenset({"messages"}), 1, _parse_messages),
    Format("prompt and completion", frozenset({"prompt", "completion"}), 1, _parse_completion),
    Format("pairs", frozenset({"prompt", "terse", "verbose"}), 2, _parse_pair),
)


def find_sources(path: Path) -> list[DataFile]:
    """The data files at ``path``, each with the format of its first row.

    Raises:
        PipelineError: A file is empty or unreadable, or its first row matches no format.
    """
    sources, problems = [], Problems()
    for file in data_files(path):
        before = problems.count
        first = next(read_objects(file, problems), None)
        if first is None:
            if problems.count == before:
                problems.add(str(file), "holds no examples; add at least one row of each style.")
            continue
        number, row = first
        known = [candidate for candidate in FORMATS if candidate.keys <= row.keys()]
        if known:
            sources.append(DataFile(file, known[0]))
        else:
            shapes = "; ".join(f"{candidate.name}: {_keys(candidate)}" for candidate in FORMATS)
            problems.add(f"{file.name}:{number}", f"no known format (keys: {_listed(row)}); expected {shapes}.")
    problems.raise_any()
    return sources


def stream_examples(sources: Iterable[DataFile]) -> Iterator[Example]:
    """Yield every example of the files in order, in memory that does not grow with their text.

    The examples are valid only if the iterator ends without an error, which is raised after the last row.

    Raises:
        PipelineError: Some rows are unusable, an example occurs twice, or a style is missing; the message names the
            first problems by file, line and field.
    """
    problems, seen, styles = Problems(), dict[str, str](), set[Style]()
    names = []
    for source in sources:
        names.append(source.path.name)
        for number, row in read_objects(source.path, problems):
            origin = f"{source.path.name}:{number}"
            try:
                examples = list(_examples(source.format, row, origin))
            except RowError as error:
                problems.add(origin, str(error))
                continue
            for example in examples:
                digest = sha256_of_text(example.prompt, example.completion)
                if (first := seen.setdefault(digest, origin)) != origin:
                    problems.add(origin, f"the same {example.style} example as {first}; remove one.")
                    continue
                styles.add(example.style)
                yield example
    if not problems.count and len(styles) < len(Style):
        missing = next(style for style in Style if style not in styles)
        words = " or ".join(repr(word) for word in STYLE_KEYWORDS[missing])
        problems.add(
            ", ".join(names), f"no {missing} example; a prompt with {words}, or a style of its own, makes one."
        )
    problems.raise_any()


def in_batches(examples: Iterable[Example], size: int = 512) -> Iterator[list[Example]]:
    """Yield lists of ``size`` examples (the last may be shorter), since tokenizers are fastest on many texts."""
    remaining = iter(examples)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def read_examples(path: Path) -> list[Example]:
    """Read every example at a path into memory; for files of about the shipped size.

    Raises:
        PipelineError: See ``find_sources`` and ``stream_examples``.
    """
    return list(stream_examples(find_sources(path)))


def _examples(format_: Format, row: dict[str, Any], origin: str) -> Iterator[Example]:
    if missing := format_.keys - row.keys():
        raise RowError(f"{', '.join(sorted(missing))}: missing; the file is {format_.name} ({_keys(format_)}).")
    subject = _subject(row)
    for style, words, completion in format_.parse(row):
        yield Example(style, words, completion, origin, subject)


def _subject(row: Mapping[str, Any]) -> str | None:
    subject = row.get("field")
    if subject is not None and not isinstance(subject, str):
        raise RowError("field: expected a string; it names the subject.")
    return subject


def _keys(format_: Format) -> str:
    return ", ".join(sorted(format_.keys))


def _listed(row: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, row))[:6]) or "none"


@dataclass(frozen=True, slots=True)
class Question:
    """One held-out question, without an answer."""

    text: str
    subject: str | None


def read_questions(path: Path) -> list[Question]:
    """Read held-out questions (``{"question": ..., "field": ...}`` per line).

    Raises:
        PipelineError: A row has no question, a style keyword in it, or a question that occurs twice.
    """
    problems, questions = Problems(), dict[str, Question]()
    for number, row in read_objects(path, problems):
        origin = f"{path.name}:{number}"
        try:
            text = _text(row.get("question"), "question")
            if found := find_keywords(text):
                raise RowError(f"question: contains {_named(found)}; only the token may ask for a style.")
            if text.lower() in questions:
                raise RowError("question: occurs twice; remove one.")
            questions[text.lower()] = Question(text, _subject(row))
        except RowError as error:
            problems.add(origin, str(error))
    problems.raise_any()
    if not questions:
        raise PipelineError(f"{path}: holds no questions.")
    return list(questions.values())
