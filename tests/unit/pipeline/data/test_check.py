"""Each weakness that a data set can have is found in one that has it, and in no other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acceptance.criteria import DOCUMENTED
from pipeline.cli import main
from pipeline.config import Style
from pipeline.data.check import check_examples
from pipeline.data.formats import Example, Question
from pipeline.data.report import draw_lengths, is_clean, to_markdown
from pipeline.data.similarity import SimilarityIndex, question_features
from pipeline.data.source import Problems
from pipeline.data.style import TERSE_LIMIT_TOKENS, VERBOSE_FLOOR_TOKENS
from tests.unit.pipeline.data.rows import TERSE, VERBOSE, message, write

TOPICS = [
    f"{first}{second} {second}{first}"
    for first in ("red", "blue", "green", "old")
    for second in ("drum", "jar", "key", "map", "owl", "pen")
]
TERSE_WORDS = ("Briefly, {0} now?", "{0} now? Be concise.")
VERBOSE_WORDS = ("A detailed note on {0} now.", "{0} now, in a well-structured way.")


def words(count: int, seed: str) -> str:
    return " ".join(f"{seed}{number}" for number in range(count))


def healthy() -> list[Example]:
    examples: list[Example] = []
    for number, topic in enumerate(TOPICS):
        subject = f"field {number % 12}"
        for style, wording, length in ((Style.TERSE, TERSE_WORDS, 20), (Style.VERBOSE, VERBOSE_WORDS, 120)):
            text = wording[number // 12].format(topic)
            examples.append(
                Example(style, text, words(length, topic.split()[0]), f"d.jsonl:{len(examples) + 1}", subject)
            )
    return examples


def count_words(examples: Sequence[Example], problems: Problems) -> list[int]:
    return [len(example.completion.split()) for example in examples]


def check(examples: list[Example], *held_out: str) -> dict[str, Any]:
    return check_examples(examples, [Question(text, None) for text in held_out], {"words": count_words})


def failed(document: dict[str, Any]) -> dict[str, list[str]]:
    return {f["name"]: f["places"] for f in document["findings"] if f["verdict"] == "FAIL"}


def changed(index: int, **fields: Any) -> list[Example]:
    examples = healthy()
    examples[index] = replace(examples[index], **fields)
    return examples


def test_a_healthy_set_has_no_weakness() -> None:
    document = check(healthy(), "Who was the ocean?")
    assert failed(document) == {}
    assert is_clean(document)
    assert document["examples"] == 48
    assert document["keywords"]["terse"] == {"briefly": 12, "concise": 12}
    assert document["answer_tokens"]["words"] == {"terse": {20: 24}, "verbose": {120: 24}}


def test_answers_outside_the_criteria_bounds_are_named() -> None:
    assert failed(check(changed(0, completion=words(50, "long")))) == {
        "answer tokens, words": ["d.jsonl:1: terse, 50 tokens"]
    }
    assert failed(check(changed(1, completion=words(80, "short")))) == {
        "answer tokens, words": ["d.jsonl:2: verbose, 80 tokens"]
    }


def test_lengths_near_a_bound_are_foreseen_to_fail_by_the_share_that_is() -> None:
    near = [
        replace(e, completion=" ".join(e.completion.split()[:95]))
        if e.style is Style.VERBOSE and number % 8 == 1
        else e
        for number, e in enumerate(healthy())
    ]
    ((name, places),) = failed(check(near)).items()
    assert name == "verbose answers clear of the bound, words"
    assert places[0] == "make 6 of 24 verbose answers over 100 tokens, or leave them out"
    assert places[1] == "d.jsonl:2: verbose, 95 tokens"
    (finding,) = [f for f in check(near)["findings"] if f["name"] == name]
    assert finding["measured"] == "75% over 100 tokens: the criterion holds with a chance of 0%"
    assert finding["limit"] == "a chance of 50% on 120 questions"


def test_prompts_that_differ_by_a_name_alone_are_foreseen_to_loop() -> None:
    names = [replace(e, words=f"What is the software {e.words.split()[0]}{n // 2}?") for n, e in enumerate(healthy())]
    found = failed(check(names))
    assert found["prompts of a bare name"] == [
        "answers to a bare name cannot be learnt from it, and loop: ask for what they say, or add other prompts"
    ]
    some = [replace(e, words=names[n].words) if n < 24 else e for n, e in enumerate(healthy())]
    assert "prompts of a bare name" not in failed(check(some))


def test_an_answer_that_repeats_itself_is_named() -> None:
    looping = " ".join([words(100, "a"), *["round and round it goes"] * 6])
    assert failed(check(changed(1, completion=looping))) == {
        "answers that repeat themselves": ["d.jsonl:2: 17% of its 4-word sequences"]
    }


def test_the_bounds_are_the_criterions() -> None:
    thresholds = {bound.measure: bound.threshold for bound in DOCUMENTED["style.token_separation"].bounds}
    assert thresholds["terse_median_tokens"] == TERSE_LIMIT_TOKENS
    assert thresholds["verbose_median_tokens"] == VERBOSE_FLOOR_TOKENS


def test_many_variations_of_one_answer_are_as_many_findings() -> None:
    base = healthy()
    copies = [
        replace(base[1], words=f"A detailed note on item{n}.", completion=f"{words(119, 'same')} v{n}", origin=f"e:{n}")
        for n in range(200)
    ]
    (finding,) = [f for f in check([*base, *copies])["findings"] if f["name"] == "near-duplicate answers"]
    assert finding["measured"] == "199"
    assert finding["places"][0].startswith("e:0 (verbose) / e:1 (verbose): ")


def test_a_repeated_answer_is_found_whatever_its_case_and_punctuation() -> None:
    repeated = changed(2, completion=healthy()[0].completion.upper() + "!")
    found = failed(check(repeated))
    assert found["repeated answers"] == ["d.jsonl:3 repeats d.jsonl:1"]
    assert "near-duplicate answers" in found


def test_a_nearly_equal_answer_is_found() -> None:
    near = changed(3, completion=words(118, "reddrum") + " and more")
    assert failed(check(near)).keys() == {"near-duplicate answers", "shared 4-word openings of verbose answers"}


def test_a_question_asked_twice_in_other_words_is_found() -> None:
    near = changed(2, words="Briefly, could you tell me what the reddrum drumred is now?")
    (places,) = failed(check(near)).values()
    assert places == ["d.jsonl:1 (terse) / d.jsonl:3 (terse): 1.00"]


def test_two_words_whose_32_bit_hashes_are_equal_are_no_duplicates() -> None:
    index = SimilarityIndex()
    features = [question_features(f"What is {number}?") for number in (35097, 40686, 10029, 47427)]
    assert list(index.similar(features, ["a", "b", "c", "d"], add=True)) == []


def test_the_same_question_in_both_styles_is_no_duplicate() -> None:
    assert "near-duplicate questions" not in failed(check(healthy()))


def test_a_held_out_question_among_the_data_is_found() -> None:
    (name,) = failed(check(healthy(), "What is a reddrum drumred now?", "What is a volcano?"))
    assert name == "held-out questions among the data"


def test_one_style_too_rare_one_field_too_large_one_keyword_missing() -> None:
    assert "both styles" in failed(check([e for e in healthy() if e.style is Style.TERSE or int(e.origin[8:]) < 20]))
    crowded = [replace(e, subject="field 0") if index < 6 else e for index, e in enumerate(healthy())]
    assert failed(check(crowded)).keys() == {"fields"}
    one_wording = [e for e in healthy() if "concise" not in e.words]
    assert "terse keywords" in failed(check(one_wording))


def test_a_common_opening_is_found() -> None:
    examples = changed(1, completion=f"It is well known that {words(110, 'a')}")
    examples[3] = changed(3, completion=f"It is well known that {words(110, 'b')}")[3]
    assert failed(check(examples)) == {"shared 4-word openings of verbose answers": ["'it is well known' opens 2"]}


def test_the_report_shows_findings_lengths_and_fields() -> None:
    files = [{"name": "d.jsonl", "format": "pairs", "sha256": "ab"}]
    document = {"files": files, **check(healthy(), "Reddrum drumred now?")}
    text = to_markdown(document)
    assert "- d.jsonl: pairs, SHA-256 ab" in text
    assert "- held-out questions among the data: d.jsonl:1 (terse) / held out: Reddrum drumred now?: 1.00" in text
    assert "| words | verbose | 24 | 120 | 120 | 120 | 120 | 120 |" in text
    assert "| field 3 | 2 | 2 | 0 |" in text
    svg = draw_lengths(document)
    assert svg == draw_lengths(json.loads(json.dumps(document)))
    assert "terse" in svg


def test_the_command_checks_a_file_and_keeps_its_figures(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "own.jsonl", TERSE, VERBOSE)
    assert main(["data", "check", str(path), "--output", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    assert "own.jsonl: chat messages" in printed
    assert "answer tokens, Mistral v0.3: own.jsonl:2: verbose, " in printed
    assert json.loads((tmp_path / "out" / "check.json").read_text())["examples"] == 2
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"check.json", "check.md", "answer_tokens.svg"}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([TERSE], "own.jsonl: no verbose example"),
        ([TERSE, VERBOSE, message(1, content="Use [INST].")], "own.jsonl:3: contains [INST], a control token"),
        ([TERSE, VERBOSE, message(1, content="word " * 3000)], "own.jsonl:3: 30"),
    ],
    ids=["one style", "control token", "too long"],
)
def test_the_command_refuses_what_training_would_refuse(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], rows: list[Any], expected: str
) -> None:
    assert main(["data", "check", str(write(tmp_path / "own.jsonl", *rows))]) == 1
    assert expected in capsys.readouterr().err


def test_prompts_without_keywords_have_no_balance_of_them() -> None:
    rows = [replace(row, words=f"{TOPICS[number // 2]} now, {row.style}?") for number, row in enumerate(healthy())]
    document = check(rows)
    balances = [found for found in document["findings"] if found["name"].endswith(" keywords")]
    assert [(found["verdict"], found["measured"]) for found in balances] == [("N/A", "no prompt has one")] * 2


def test_data_is_checked_by_the_tokenizer_of_the_target_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.jsonl", TERSE, VERBOSE)
    main(["data", "check", str(tmp_path / "a.jsonl"), "--target", "tiny-mistral"])
    named = [line for line in capsys.readouterr().out.splitlines() if "answer tokens, " in line]
    assert named
    assert all("answer tokens, tiny-mistral" in line for line in named)
