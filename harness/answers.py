"""Kept answers: what measures were computed from, one line of JSON each, bound by digest to the document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

Answer = Mapping[str, Any]
"""One answer: JSON scalars, lists and objects by name."""


class AnswersError(ValueError):
    """Kept answers are missing, edited, or those of something else."""


def answers_file(subject: str) -> str:
    """Return the name of the file with a subject's answers."""
    return f"answers-{quote(subject, safe='')}.jsonl"


def checked_answers(answers: Iterable[Answer]) -> list[Answer]:
    """Return copies of the answers as they will be read back.

    Raises:
        ValueError: One cannot be written as JSON, or two are equal.
    """
    lines = []
    for answer in answers:
        try:
            lines.append(_line(dict(answer)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"an answer cannot be kept: {error}; keep finite JSON values") from error
    if len(set(lines)) < len(lines):
        raise ValueError("two kept answers are equal; say in each of which case it is")
    return [json.loads(line) for line in lines]


def answers_text(subject: str, identity: Mapping[str, Any], tests: Iterable[tuple[str, Sequence[Answer]]]) -> str:
    """Return the content of a subject's file: its name and identity, then each answer with the tests that kept it.

    Args:
        subject: Name of the subject.
        identity: Its identity in the document: the digests of what produced the answers.
        tests: Node id of each test and what it kept.

    Returns:
        JSON Lines; empty where nothing was kept. An answer that several tests kept is written once.
    """
    keepers: dict[str, list[str]] = {}
    for nodeid, answers in tests:
        for answer in answers:
            keepers.setdefault(_line(answer), []).append(nodeid)
    if not keepers:
        return ""
    lines = [_line({"subject": subject, "identity": identity})]
    lines += [f'{{"tests":{_line(nodeids)},"answer":{answer}}}' for answer, nodeids in keepers.items()]
    return "\n".join(lines) + "\n"


def describe_answers(subject: str, text: str) -> dict[str, object]:
    """Return the document's record of a subject's answers: file, SHA-256 and their number."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"file": answers_file(subject), "sha256": digest, "count": text.count("\n") - 1}


def read_answers(folder: Path, described: Mapping[str, Any]) -> tuple[str, dict[str, list[Answer]]]:
    """Read the answers that a document's subject rests on.

    Args:
        folder: The folder of the document.
        described: The subject in the document.

    Returns:
        The file's text, and the answers by node id of the test that kept them; both empty where none were kept.

    Raises:
        AnswersError: The file is missing or not the recorded one, or its answers are of another subject or identity.
    """
    record = described.get("answers")
    if record is None:
        return "", {}
    file = folder / answers_file(described["name"])
    try:
        content = file.read_bytes()
    except OSError as error:
        raise AnswersError(f"{file}: {error.strerror}; restore the answers that the document rests on") from error
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise AnswersError(f"{file}: its SHA-256 is not the one in the document; restore the file of that run")
    try:
        header, *rows = [json.loads(line) for line in content.splitlines()]
        kept: dict[str, list[Answer]] = {}
        for row in rows:
            for nodeid in row["tests"]:
                kept.setdefault(nodeid, []).append(row["answer"])
        origin = header["subject"], header["identity"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise AnswersError(f"{file}: holds no kept answers ({error}); restore the file of that run") from error
    if origin != (described["name"], described["identity"]):
        raise AnswersError(f"{file}: answers of {_difference(*origin, described)}; run the acceptance again")
    return content.decode(), kept


def _difference(subject: Any, identity: Any, described: Mapping[str, Any]) -> str:
    if subject != described["name"]:
        return f"the subject {subject!r}, not of {described['name']!r}"
    expected = described["identity"]
    names = [name for name in {**expected, **identity} if expected.get(name) != identity.get(name)]
    return f"other weights or settings than the document's: {', '.join(names)}"


def _line(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
