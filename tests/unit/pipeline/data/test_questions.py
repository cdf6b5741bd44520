"""Questions of the user's own: enough, not trained on, held out by a seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from acceptance.criteria import DOCUMENTED
from harness.statistics import Proportion
from pipeline.cli import main
from pipeline.data.confidence import (
    CONFIDENCE,
    IN_BOUND_SHARE,
    SHIPPED_QUESTIONS,
    chance_to_hold,
    fewest_in_bound,
    judged_questions,
    needed_questions,
)
from pipeline.data.formats import read_questions
from pipeline.data.questions import hold_out, read_own_questions, recorded_data
from pipeline.errors import PipelineError
from pipeline.files import HELD_OUT_QUESTIONS, TRAINING_DATA, sha256_of
from tests.unit.pipeline.data.rows import TERSE, VERBOSE, write


def test_the_confidence_is_the_criterions() -> None:
    (bound,) = [b for b in DOCUMENTED["style.token_separation"].bounds if b.measure == "verbose_in_bound_share"]
    assert (bound.threshold, bound.confidence) == (IN_BOUND_SHARE, CONFIDENCE)
    assert len(read_questions(HELD_OUT_QUESTIONS)) == SHIPPED_QUESTIONS


@pytest.mark.parametrize("questions", [1, 28, 29, 30, 40, 60, 100, 120, 400, 2000])
def test_the_fewest_answers_in_bound_are_those_that_the_gate_passes(questions: int) -> None:
    fewest = fewest_in_bound(questions)
    if questions < needed_questions():
        assert fewest is None
        assert Proportion(questions, questions).low(CONFIDENCE) < IN_BOUND_SHARE
    else:
        assert fewest is not None
        assert Proportion(fewest, questions).low(CONFIDENCE) >= IN_BOUND_SHARE
        assert Proportion(fewest - 1, questions).low(CONFIDENCE) < IN_BOUND_SHARE


def test_the_chance_to_hold_grows_with_the_share() -> None:
    chances = [chance_to_hold(share, 120) for share in (0.0, 0.9, 0.95, 0.99, 1.0)]
    assert chances == sorted(chances)
    assert chances[1] <= 1 - CONFIDENCE
    assert chances[-1] == 1.0
    assert chance_to_hold(1.0, needed_questions() - 1) == 0.0
    assert (judged_questions(10), judged_questions(50)) == (SHIPPED_QUESTIONS, 50)


def questions_file(path: Path, texts: list[str]) -> Path:
    return write(path, *[{"question": text} for text in texts])


def test_the_shipped_questions_are_not_in_the_shipped_data() -> None:
    own = read_own_questions(HELD_OUT_QUESTIONS, TRAINING_DATA)
    assert len(own.questions) == SHIPPED_QUESTIONS
    assert own.sha256 == sha256_of(HELD_OUT_QUESTIONS)
    assert own.data_sha256 == sha256_of(TRAINING_DATA)
    assert own.describe() == {
        "file": "heldout_questions.jsonl",
        "sha256": own.sha256,
        "count": SHIPPED_QUESTIONS,
        "data_sha256": own.data_sha256,
    }


def test_questions_that_nothing_was_compared_with_say_so() -> None:
    assert read_own_questions(HELD_OUT_QUESTIONS, None).describe()["data_sha256"] is None


def test_too_few_questions_are_refused_with_how_many_are_missing(tmp_path: Path) -> None:
    path = questions_file(tmp_path / "q.jsonl", [f"What is number{n}?" for n in range(20)])
    with pytest.raises(PipelineError, match=r"q.jsonl: 20 questions; the criteria's confidence needs 29, .*; add 9\."):
        read_own_questions(path, TRAINING_DATA)


def test_questions_that_were_trained_on_are_named(tmp_path: Path) -> None:
    texts = [f"What is number{n}?" for n in range(30)]
    path = questions_file(tmp_path / "q.jsonl", [*texts, "Could you tell me what number4 is?"])
    pairs = [{"prompt": f"What is {word}?", "terse": "A.", "verbose": "A, and more."} for word in ("number4", "rain")]
    data = write(tmp_path / "own.jsonl", *pairs)
    with pytest.raises(PipelineError) as refusal:
        read_own_questions(path, data)
    assert "2 of 31 questions are in the training data" in str(refusal.value)
    assert "question 5: What is number4? / own.jsonl:1 (terse): 1.00" in str(refusal.value)
    assert "question 31: " in str(refusal.value)


def pairs_file(path: Path, count: int) -> Path:
    rows = [{"prompt": f"What is item{n}?", "terse": f"{n}.", "verbose": f"{n}, and more."} for n in range(count)]
    return write(path, *rows)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_held_out_prompts_are_those_of_the_seed_and_never_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pairs_file(tmp_path / "own.jsonl", 400)
    out = tmp_path / "split"
    assert main(["data", "split", str(data), "--share", "0.2", "--seed", "7", "--output", str(out)]) == 0
    kept, held = read_rows(out / "train.jsonl"), read_rows(out / "questions.jsonl")
    assert f"{len(kept)} examples to train on, {len(held)} questions to judge by" in capsys.readouterr().out
    assert {row["prompt"] for row in kept}.isdisjoint(row["question"] for row in held)
    assert len(kept) + 2 * len(held) == 800
    assert 50 < len(held) < 110
    split = json.loads((out / "split.json").read_text())
    assert (split["seed"], split["share"], split["data_sha256"]) == (7, 0.2, sha256_of(data))
    assert len(read_own_questions(out / "questions.jsonl", out / "train.jsonl").questions) == len(held)
    grown = hold_out(pairs_file(tmp_path / "own.jsonl", 500), 0.2, 7, tmp_path / "grown")
    assert {row["question"] for row in held} <= {r["question"] for r in read_rows(tmp_path / "grown/questions.jsonl")}
    assert grown["questions"] > len(held)
    hold_out(data, 0.2, 8, tmp_path / "other")
    assert read_rows(tmp_path / "other" / "questions.jsonl")[:9] != held[:9]


def test_the_seed_is_recorded_only_of_an_unchanged_split(tmp_path: Path) -> None:
    out = tmp_path / "split"
    hold_out(pairs_file(tmp_path / "own.jsonl", 400), 0.2, 7, out)
    questions, train = out / "questions.jsonl", out / "train.jsonl"
    assert read_own_questions(questions, train).describe()["split"] == {"seed": 7, "share": 0.2}
    assert read_own_questions(questions, None).split is None
    assert read_own_questions(questions, TRAINING_DATA).split is None
    questions.write_text(questions.read_text().partition("\n")[2])
    assert read_own_questions(questions, train).split is None
    (out / "split.json").write_text("[]")
    assert read_own_questions(questions, train).split is None


def test_the_data_of_a_run_is_found_by_its_digest(tmp_path: Path) -> None:
    hold_out(pairs_file(tmp_path / "own.jsonl", 400), 0.2, 7, tmp_path / "split")
    questions, train = tmp_path / "split" / "questions.jsonl", tmp_path / "split" / "train.jsonl"
    recorded = {"file": "train.jsonl", "sha256": sha256_of(train)}
    assert recorded_data(recorded, None, questions) == train
    assert recorded_data(recorded, train, None) == train
    shipped = {"file": TRAINING_DATA.name, "sha256": sha256_of(TRAINING_DATA)}
    assert recorded_data(shipped, None, questions) == TRAINING_DATA
    with pytest.raises(PipelineError, match=r"trained on 'train.jsonl', sha256 .*, which is not here; name that data"):
        recorded_data(recorded, None, tmp_path / "questions.jsonl")
    with pytest.raises(PipelineError, match=r"own.jsonl: sha256 .*, and the run was trained on 'train.jsonl', sha256"):
        recorded_data(recorded, tmp_path / "own.jsonl", questions)
    with pytest.raises(PipelineError, match=r"none\.jsonl: cannot be read"):
        recorded_data(recorded, tmp_path / "none.jsonl", questions)


def test_nothing_is_trained_on_that_asks_nearly_what_a_question_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phrased = ("What is item{}?", "Could you tell me what item{} is?", "What is item{}, please?")
    rows = [
        {"prompt": text.format(n), "terse": f"{n} {number}.", "verbose": f"{n} {number}, and more."}
        for n in range(40)
        for number, text in enumerate(phrased)
    ]
    data, out = write(tmp_path / "own.jsonl", *rows), tmp_path / "split"
    assert main(["data", "split", str(data), "--share", "0.3", "--output", str(out)]) == 0
    said = capsys.readouterr().out
    split = json.loads((out / "split.json").read_text())
    kept, held = read_rows(out / "train.jsonl"), read_rows(out / "questions.jsonl")
    assert split["left_out"] > 0
    assert f"left out: {split['left_out']} examples" in said
    assert len(kept) + split["left_out"] + 2 * len(held) == 240
    assert len(read_own_questions(out / "questions.jsonl", out / "train.jsonl").questions) == len(held)


def test_a_split_says_how_many_questions_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pairs_file(tmp_path / "own.jsonl", 40)
    assert main(["data", "split", str(data), "--output", str(tmp_path / "split")]) == 0
    assert "to be judged by, 29 questions are needed; raise --share" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("share", "message"),
    [(0.0, "must be between 0 and 1, not 0.0"), (1.5, "not 1.5"), (1e-9, "leaves one side empty; choose another")],
)
def test_a_share_that_splits_nothing_is_refused(share: float, message: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=message):
        hold_out(pairs_file(tmp_path / "own.jsonl", 20), share, 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_already_there_is_kept(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="already exists; choose another --output"):
        hold_out(pairs_file(tmp_path / "own.jsonl", 20), 0.5, 1, tmp_path)


def test_prompts_that_ask_for_a_style_themselves_cannot_be_held_out(tmp_path: Path) -> None:
    data = write(tmp_path / "own.jsonl", VERBOSE, TERSE)
    with pytest.raises(PipelineError, match=r"own.jsonl:1: the prompt says 'detailed', .*; write the data as pairs"):
        hold_out(data, 0.999, 1, tmp_path / "out")
