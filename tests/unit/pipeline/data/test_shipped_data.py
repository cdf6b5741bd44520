"""The shipped data is what its datasheet says, and the committed figures are the ones it gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.config import Style
from pipeline.data.formats import read_examples, read_questions
from pipeline.data.report import is_clean
from pipeline.data.style import find_keywords
from pipeline.files import ASSETS, HELD_OUT_QUESTIONS, TRAINING_DATA

COMMITTED = Path(__file__).resolve().parents[4] / "results" / "data"


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    assert main(["data", "check", "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def document(checked: Path) -> Any:
    return json.loads((checked / "check.json").read_text(encoding="utf-8"))


def test_it_has_no_weakness(document: Any) -> None:
    assert is_clean(document)
    assert {finding["verdict"] for finding in document["findings"]} == {"PASS"}


@pytest.mark.parametrize("name", ["check.json", "check.md", "answer_tokens.svg"])
def test_the_committed_figures_are_the_ones_it_gives(checked: Path, name: str) -> None:
    assert (COMMITTED / name).read_text(encoding="utf-8") == (checked / name).read_text(encoding="utf-8")


def test_it_has_the_documented_size_and_spread(document: Any) -> None:
    assert (document["examples"], document["held_out_questions"]) == (1600, 120)
    assert len(document["subjects"]) >= 16
    assert document["subjects"].keys() == document["held_out_subjects"].keys()
    assert set(document["question_forms"]) == {"what", "why", "how", "compare", "should", "instruction"}


def test_answers_have_the_documented_lengths_under_both_tokenizers(document: Any) -> None:
    assert set(document["answer_tokens"]) == {"Mistral v0.3", "SmolLM2"}
    for lengths in document["answer_tokens"].values():
        assert all(8 <= int(tokens) <= 40 for tokens in lengths["terse"])
        assert all(90 <= int(tokens) <= 190 for tokens in lengths["verbose"])


def test_every_prompt_carries_a_keyword_of_its_style() -> None:
    for example in read_examples(TRAINING_DATA):
        assert set(find_keywords(example.words)) == {example.style}, example.origin


def test_every_question_is_answered_once_in_each_style() -> None:
    examples = read_examples(TRAINING_DATA)
    assert [example.style for example in examples] == [Style.TERSE, Style.VERBOSE] * 800
    for terse, verbose in zip(examples[::2], examples[1::2], strict=True):
        assert terse.subject == verbose.subject
        assert not verbose.completion.startswith(terse.completion)


def test_any_even_number_of_leading_rows_is_spread_over_the_fields() -> None:
    leading = [example.subject for example in read_examples(TRAINING_DATA)[:160]]
    assert max(leading.count(subject) for subject in set(leading)) <= 16
    assert len(set(leading)) >= 16


def test_held_out_questions_name_their_field() -> None:
    assert all(question.subject for question in read_questions(HELD_OUT_QUESTIONS))


def test_the_datasheet_names_the_files_that_are_there() -> None:
    datasheet = (ASSETS / "DATASHEET.md").read_text(encoding="utf-8")
    for file in (TRAINING_DATA, HELD_OUT_QUESTIONS):
        assert f"`{file.name}`" in datasheet
