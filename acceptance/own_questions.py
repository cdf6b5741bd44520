"""Questions and training data of the user's own, as the command line names them; checked before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import PipelineError
from pipeline.files import TRAINING_DATA
from pipeline.run_folder import RunFolder

if TYPE_CHECKING:
    from pipeline.data.questions import OwnQuestions

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
        try:
            config.stash[_OWN] = _read(config)
        except PipelineError as error:
            raise pytest.UsageError(f"--questions, --data: {error}") from error
    return config.stash[_OWN]


def _read(config: pytest.Config) -> tuple[OwnQuestions | None, Path | None]:
    questions, named = config.getoption("--questions"), config.getoption("--data")
    if questions is None and named is None:
        return None, None
    # Imported here: every pytest in the checkout loads this module.
    from pipeline.data.questions import read_own_questions

    data = _data(config, questions, named)
    return None if questions is None else read_own_questions(questions, data), data


def _data(config: pytest.Config, questions: Path | None, named: Path | None) -> Path | None:
    """The training data; None where nobody knows it."""
    from pipeline.data.questions import recorded_data

    if config.getoption("--endpoint"):
        if named is not None and questions is None:
            raise pytest.UsageError("--data: says what --questions are compared with; name them or leave it out")
        return named
    folder: Path | None = config.getoption("--run-dir")
    if folder is None:
        return named or TRAINING_DATA
    return recorded_data(RunFolder(folder).read_record()["data"], named, questions)
