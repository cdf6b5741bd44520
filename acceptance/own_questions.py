"""Questions and training data of the user's own, as the command line names them; checked before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.questions import OwnQuestions, read_own_questions, recorded_data
from pipeline.errors import PipelineError
from pipeline.files import TRAINING_DATA
from pipeline.run_folder import RunFolder

_OWN: pytest.StashKey[tuple[OwnQuestions | None, Path | None]] = pytest.StashKey()


def own_questions(config: pytest.Config) -> OwnQuestions | None:
    """The questions that ``--questions`` names, the same at every call; None without the option.

    Raises:
        pytest.UsageError: They are unusable, too few or trained on, or the run's training data is not here.
    """
    return _chosen(config)[0]


def known_data(config: pytest.Config) -> Path:
    """What is trained on, or what a run was trained on as far as the options say; the shipped data otherwise.

    Raises:
        pytest.UsageError: As ``own_questions``.
    """
    return _chosen(config)[1] or TRAINING_DATA


def question_scope(config: pytest.Config) -> str:
    """What the verdict says of questions of the user's own; empty where the shipped ones are asked."""
    own = own_questions(config)
    if own is None:
        return ""
    split = "" if own.split is None else f", held out of the data by seed {own.split['seed']}"
    unknown = "" if own.data_sha256 else "; they were compared with no training data"
    return f"asked questions of the user's own ({len(own.questions)}, sha256 {own.sha256[:12]}...{split}){unknown}"


def _chosen(config: pytest.Config) -> tuple[OwnQuestions | None, Path | None]:
    if _OWN not in config.stash:
        questions: Path | None = config.getoption("--questions")
        try:
            data = _data(config, questions)
            own = None if questions is None else read_own_questions(questions, data)
        except PipelineError as error:
            raise pytest.UsageError(f"--questions, --data: {error}") from error
        config.stash[_OWN] = own, data
    return config.stash[_OWN]


def _data(config: pytest.Config, questions: Path | None) -> Path | None:
    """The training data; None where it is not known and nothing is compared with it."""
    named: Path | None = config.getoption("--data")
    if config.getoption("--endpoint"):
        if named is not None and questions is None:
            raise pytest.UsageError("--data: says what --questions are compared with; name them or leave it out")
        return named
    folder: Path | None = config.getoption("--run-dir")
    if folder is None:
        return named or TRAINING_DATA
    if named is None and questions is None:
        return None
    return recorded_data(RunFolder(folder).read_record()["data"], named, questions)
