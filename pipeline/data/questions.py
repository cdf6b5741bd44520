"""Questions of the user's own to judge a model on: enough of them, and none that it was trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.confidence import needed_questions
from pipeline.data.discovery import data_file, data_files
from pipeline.data.formats import Example, Question, find_sources, in_batches, read_questions, stream_examples
from pipeline.data.similarity import SimilarityIndex, question_features
from pipeline.data.source import SHOWN_PROBLEMS
from pipeline.data.style import find_keywords
from pipeline.errors import PipelineError
from pipeline.files import TRAINING_DATA, building_folder, sha256_of, write_json, write_text

_QUESTIONS, _TRAIN, _SPLIT = "questions.jsonl", "train.jsonl", "split.json"


@dataclass(frozen=True, slots=True)
class OwnQuestions:
    """Questions that a model may be judged on.

    Attributes:
        questions: The questions.
        file: Name of their file.
        sha256: Digest of its name and content.
        data_sha256: Digest of the training data that they were compared with; None where nobody knows it.
        split: Seed and share, if ``hold_out`` made both files and neither changed.
    """

    questions: Sequence[Question]
    file: str
    sha256: str
    data_sha256: str | None
    split: Mapping[str, int | float] | None

    def describe(self) -> dict[str, Any]:
        """JSON values for a record, without the questions themselves."""
        described = {"file": self.file, "sha256": self.sha256, "count": len(self.questions)}
        return {**described, "data_sha256": self.data_sha256, **({"split": dict(self.split)} if self.split else {})}


def data_sha256(path: Path) -> str:
    """Digest of training data, as a run's record names it."""
    return sha256_of(*data_files(path))


def recorded_data(recorded: Mapping[str, Any], named: Path | None, questions: Path | None) -> Path:
    """The data that a run was trained on.

    Args:
        recorded: The run record's ``data``.
        named: Where the user says that it is.
        questions: The questions; ``hold_out`` leaves the data beside them.

    Raises:
        PipelineError: It is not there, or the user names other data.
    """
    trained_on = f"{recorded['file']!r}, sha256 {recorded['sha256'][:12]}..."
    if named is not None:
        if (digest := data_sha256(named)) != recorded["sha256"]:
            raise PipelineError(
                f"{named}: sha256 {digest[:12]}..., and the run was trained on {trained_on}; name that data with"
                " --data. The digest is taken over names and contents."
            )
        return named
    beside = [] if questions is None else [questions.with_name(_TRAIN)]
    for place in (*beside, TRAINING_DATA):
        if place.exists() and data_sha256(place) == recorded["sha256"]:
            return place
    raise PipelineError(f"the run was trained on {trained_on}, which is not here; name that data with --data.")


def read_own_questions(path: Path, data: Path | None) -> OwnQuestions:
    """Read questions and compare them with the training data.

    Args:
        path: One ``{"question": ..., "field": ...}`` a line.
        data: The training data, a file or a folder; None where nobody knows it.

    Raises:
        PipelineError: A row is unusable, there are too few for the confidence, or one is among the training data or
            nearly so; the message names the places and the remedy.
    """
    file = data_file(path)
    questions, needed = read_questions(file), needed_questions()
    if len(questions) < needed:
        raise PipelineError(
            f"{path}: {len(questions)} questions; the criteria's confidence needs {needed}, even if each is answered in"
            f" bound; add {needed - len(questions)}."
        )
    sources = [] if data is None else find_sources(data)
    if sources and (leaks := leaked(questions, stream_examples(sources))):
        more = f"\n... and {len(leaks) - SHOWN_PROBLEMS} more." if len(leaks) > SHOWN_PROBLEMS else ""
        raise PipelineError(
            f"{path}: {len(leaks)} of {len(questions)} questions are in the training data, so the answers may be"
            " remembered; take them out of one of the two:\n" + "\n".join(leaks[:SHOWN_PROBLEMS]) + more
        )
    digest = sha256_of(*(source.path for source in sources)) if sources else None
    return OwnQuestions(questions, file.name, sha256_of(file), digest, _split_of(file, digest))


def _split_of(questions: Path, data: str | None) -> dict[str, int | float] | None:
    """Seed and share of the split that made the questions and the data of this digest."""
    try:
        split = json.loads(questions.with_name(_SPLIT).read_text(encoding="utf-8"))
        made = (split["questions_sha256"], split["train_sha256"]) == (sha256_of(questions), data)
        return {"seed": int(split["seed"]), "share": float(split["share"])} if made else None
    except (OSError, ValueError, TypeError, LookupError):
        return None


def leaked(questions: Sequence[Question], examples: Iterable[Example]) -> list[str]:
    """The questions that training saw, in these or nearly these words, each with the first place."""
    index = SimilarityIndex()
    texts = [f"{number}: {question.text}" for number, question in enumerate(questions, start=1)]
    # The index keeps one of questions that are near to each other; what is found for it holds for all of them.
    near = list(index.similar([question_features(question.text) for question in questions], texts, add=True))
    same_as: dict[str, list[str]] = {text: [text] for text in texts}
    for pair in near:
        same_as[pair.first].append(pair.second)
    found: dict[str, str] = {}
    for batch in in_batches(examples):
        places = [f"{example.origin} ({example.style})" for example in batch]
        for pair in index.similar([question_features(example.words) for example in batch], places, add=False):
            for text in same_as[pair.first]:
                found.setdefault(text, f"question {text} / {pair.second}: {pair.similarity:.2f}")
    return [found[text] for text in texts if text in found]


def hold_out(data: Path, share: float, seed: int, output: Path) -> dict[str, Any]:
    """Split data into ``train.jsonl`` and ``questions.jsonl``, so that no question is trained on.

    A prompt is held out by a digest of the seed and its words, whatever its place: the same prompts of a file that grew
    stay on their side. Examples that ask nearly what a held-out question asks are left out. The rows keep their order.

    Args:
        data: Training data whose prompts carry no style keyword, a file or a folder.
        share: Of the prompts, between 0 and 1.
        seed: Any number.
        output: Folder to write; it must be empty or not exist.

    Returns:
        What ``split.json`` beside the two says: seed, share, digests of the data and of both files, and counts.

    Raises:
        PipelineError: The data is unusable, a held-out prompt carries a keyword, the share leaves one side empty, or
            the output exists.
    """
    if not 0 < share < 1:
        raise PipelineError(f"the share to hold out must be between 0 and 1, not {share}.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise PipelineError(f"{output}: already exists; choose another --output.")
    kept: list[dict[str, str]] = []
    questions: dict[str, dict[str, str]] = {}
    sources = find_sources(data)
    for example in stream_examples(sources):
        subject = {} if example.subject is None else {"field": example.subject}
        if _draw(seed, example.words) >= share:
            row = {"prompt": example.words, "completion": example.completion, "style": example.style.value}
            kept.append({**row, **subject})
        elif found := find_keywords(example.words):
            word = next(iter(found.values()))[0]
            raise PipelineError(
                f"{example.origin}: the prompt says {word!r}, and only the token may ask a held-out question for a"
                " style; write the data as pairs, whose prompts carry no keyword."
            )
        else:
            questions.setdefault(example.words.lower(), {"question": example.words, **subject})
    near = _near(questions, [row["prompt"] for row in kept])
    left = [row for number, row in enumerate(kept) if number not in near]
    if not left or not questions:
        raise PipelineError(f"{data}: a share of {share} leaves one side empty; choose another.")
    split: dict[str, Any] = {
        "seed": seed,
        "share": share,
        "data_sha256": sha256_of(*(source.path for source in sources)),
        "examples": len(left),
        "left_out": len(near),
        "questions": len(questions),
    }
    with building_folder(output) as folder:
        write_text(folder / _TRAIN, _lines(left))
        write_text(folder / _QUESTIONS, _lines(questions.values()))
        split |= {"train_sha256": sha256_of(folder / _TRAIN), "questions_sha256": sha256_of(folder / _QUESTIONS)}
        write_json(folder / _SPLIT, split)
    return split


def _near(questions: Iterable[str], prompts: Sequence[str]) -> set[int]:
    """Which prompts ask nearly the same as a question."""
    index = SimilarityIndex()
    held_out = list(questions)
    list(index.similar([question_features(text) for text in held_out], held_out, add=True))
    numbers = [str(number) for number in range(len(prompts))]
    return {int(pair.second) for pair in index.similar([question_features(p) for p in prompts], numbers, add=False)}


def _draw(seed: int, words: str) -> float:
    digest = hashlib.sha256(f"{seed}:{words.lower()}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _lines(rows: Iterable[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
