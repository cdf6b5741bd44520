"""What --questions and --data choose: questions of the user's own, compared with what was trained on, and recorded."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from acceptance.own_questions import known_data, own_questions, question_scope
from pipeline.data.questions import hold_out
from pipeline.files import TRAINING_DATA, sha256_of
from pipeline.run_folder import RunFolder
from tests.forked import run_pytest
from tests.unit.test_selection import chosen

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """What ``verbosity data split`` leaves: train.jsonl, questions.jsonl and split.json."""
    data = tmp_path / "own.jsonl"
    rows = [{"prompt": f"What is item{n}?", "terse": f"{n}.", "verbose": f"{n}, and more."} for n in range(200)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    hold_out(data, 0.2, 5, tmp_path / "split")
    return tmp_path / "split"


def run_on(data: Path, folder: Path) -> Path:
    """The record of a run that was trained on this data."""
    RunFolder(folder).update(
        target="tiny-mistral", status="completed", data={"file": data.name, "sha256": sha256_of(data)}
    )
    return folder


def test_without_the_options_the_shipped_questions_are_asked() -> None:
    assert own_questions(chosen()) is None
    assert (known_data(chosen()), question_scope(chosen())) == (TRAINING_DATA, "")


def test_the_verdict_names_the_questions_and_the_seed(split: Path, tmp_path: Path) -> None:
    run = run_on(split / "train.jsonl", tmp_path / "run")
    config = chosen(questions=split / "questions.jsonl", run_dir=run)
    own = own_questions(config)
    assert own is not None
    assert own is own_questions(config)
    assert known_data(config) == split / "train.jsonl"
    assert question_scope(config) == (
        f"asked questions of the user's own ({len(own.questions)}, sha256 {own.sha256[:12]}..., held out of the data by"
        " seed 5)"
    )


def test_questions_that_the_run_was_trained_on_are_refused(split: Path, tmp_path: Path) -> None:
    run = run_on(tmp_path / "own.jsonl", tmp_path / "run")
    options = {"questions": split / "questions.jsonl", "run_dir": run}
    with pytest.raises(pytest.UsageError, match=r"trained on 'own.jsonl', sha256 .* is not here; name that data with"):
        own_questions(chosen(**options))
    with pytest.raises(pytest.UsageError, match="questions are in the training data"):
        own_questions(chosen(**options, data=tmp_path / "own.jsonl"))
    with pytest.raises(pytest.UsageError, match=r"train.jsonl: sha256 .*, and the run was trained on 'own.jsonl'"):
        own_questions(chosen(**options, data=split / "train.jsonl"))


def test_data_is_compared_with_the_runs_even_without_questions(split: Path, tmp_path: Path) -> None:
    run = run_on(tmp_path / "own.jsonl", tmp_path / "run")
    assert known_data(chosen(run_dir=run, data=tmp_path / "own.jsonl")) == tmp_path / "own.jsonl"
    with pytest.raises(pytest.UsageError, match="and the run was trained on"):
        known_data(chosen(run_dir=run, data=split / "train.jsonl"))


def test_a_run_that_does_not_say_what_it_was_trained_on_is_refused(split: Path, tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").update(target="tiny-mistral", status="completed")
    with pytest.raises(pytest.UsageError, match=r"run.json: has no 'data'"):
        own_questions(chosen(questions=split / "questions.jsonl", run_dir=tmp_path / "run"))


def test_what_the_gate_trains_on_itself_is_compared(split: Path, tmp_path: Path) -> None:
    questions = split / "questions.jsonl"
    assert known_data(chosen(questions=questions, data=split / "train.jsonl")) == split / "train.jsonl"
    assert known_data(chosen(questions=questions)) == TRAINING_DATA
    with pytest.raises(pytest.UsageError, match="questions are in the training data"):
        own_questions(chosen(questions=questions, data=tmp_path / "own.jsonl"))


def test_of_an_endpoint_the_verdict_says_if_nothing_was_compared(split: Path, tmp_path: Path) -> None:
    options = {"questions": split / "questions.jsonl", "endpoint": "http://h"}
    assert question_scope(chosen(**options)).endswith("...); they were compared with no training data")
    assert question_scope(chosen(**options, data=split / "train.jsonl")).endswith("held out of the data by seed 5)")
    with pytest.raises(pytest.UsageError, match="questions are in the training data"):
        own_questions(chosen(**options, data=tmp_path / "own.jsonl"))
    with pytest.raises(pytest.UsageError, match="--data: says what --questions are compared with"):
        own_questions(chosen(endpoint="http://h", data=tmp_path / "own.jsonl"))


def collected(*options: str) -> subprocess.CompletedProcess[str]:
    """What a run in a process of its own would judge."""
    arguments = ("-q", "-n", "0", "-m", "embedded", "--collect-only", "acceptance", "--target", "tiny-mistral")
    return run_pytest(*arguments, *options, cwd=ROOT)


@pytest.mark.slow
def test_both_spellings_work_outside_and_leave_the_snapshots_out(split: Path) -> None:
    # With this file there, pytest takes the folder for its root if it takes a value for a place of tests.
    (split / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    paths = {"--questions": split / "questions.jsonl", "--data": split / "train.jsonl"}
    options = [word for option, path in paths.items() for word in (option, str(path), f"{option}={path}")]
    found = collected(*options)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "test_style.py::test_token_separation[tiny-mistral]" in found.stdout
    assert "test_snapshots.py" not in found.stdout
    assert "2 deselected" in found.stdout


@pytest.mark.slow
def test_too_few_questions_are_a_usage_error_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("".join(f'{{"question": "What is number{n}?"}}\n' for n in range(20)))
    refused = collected(f"--questions={tmp_path / 'q.jsonl'}")
    assert refused.returncode == 4
    assert (
        "20 questions; the criteria's confidence needs 29, even if each is answered in bound; add 9." in refused.stderr
    )
    assert "test_style.py" not in refused.stdout
