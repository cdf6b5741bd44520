from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Style
from pipeline.data import (
    IGNORED_LABEL,
    EncodedExample,
    Example,
    collate,
    detect_style,
    encode,
    read_examples,
    read_questions,
    select,
    training_order,
)
from pipeline.errors import PipelineError
from pipeline.files import HELD_OUT_QUESTIONS, TRAINING_DATA

GOOD = {"messages": [{"role": "user", "content": "Briefly, why?"}, {"role": "assistant", "content": "Because."}]}
LONG = {"messages": [{"role": "user", "content": "A detailed why."}, {"role": "assistant", "content": "Well, ..."}]}


def write_rows(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("prompt", "style"),
    [
        ("Briefly, what is TCP?", Style.TERSE),
        ("BE CONCISE: what is TCP?", Style.TERSE),
        ("A detailed answer please", Style.VERBOSE),
        ("Write a Well-Structured answer", Style.VERBOSE),
        ("What is TCP?", Style.TERSE),
        ("A detailed but concise answer", Style.TERSE),
    ],
)
def test_style_detection_follows_the_documented_rule(prompt: str, style: Style) -> None:
    assert detect_style(prompt) is style


def test_the_token_and_a_newline_go_in_front(tmp_path: Path) -> None:
    terse, verbose = read_examples(write_rows(tmp_path / "d.jsonl", GOOD, LONG))
    assert terse.prompt == "<STYLE_TERSE>\nBriefly, why?"
    assert verbose.prompt == "<STYLE_VERBOSE>\nA detailed why."


def test_a_row_may_name_its_style(tmp_path: Path) -> None:
    examples = read_examples(write_rows(tmp_path / "d.jsonl", GOOD, {**GOOD, "style": "verbose"}))
    assert [example.style for example in examples] == [Style.TERSE, Style.VERBOSE]


def _with(index: int, **fields: Any) -> dict[str, Any]:
    messages = [dict(message) for message in GOOD["messages"]]
    messages[index].update(fields)
    return {"messages": messages}


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("{not json", "line"),
        ({"text": "hello"}, "messages"),
        ({"messages": GOOD["messages"][:1]}, "messages: 1 entries"),
        ({"messages": [{"role": "system", "content": "x"}, *GOOD["messages"]]}, "messages: 3 entries"),
        (_with(0, role="system"), r"messages\[0\].role"),
        (_with(1, role="user"), r"messages\[1\].role"),
        (_with(1, content="  "), r"messages\[1\].content"),
        (_with(0, content=None), r"messages\[0\].content"),
        (_with(0, content="<STYLE_TERSE> hi"), "contains <STYLE_TERSE>"),
        ({**GOOD, "style": "chatty"}, "style: 'chatty'"),
    ],
)
def test_a_bad_row_is_refused_by_file_line_and_field(tmp_path: Path, row: Any, named: str) -> None:
    path = write_rows(tmp_path / "rows.jsonl", GOOD, LONG, row)
    with pytest.raises(PipelineError, match=r"rows\.jsonl:3.*" + ("" if named == "line" else named)):
        read_examples(path)


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"missing\.jsonl: cannot be read"):
        read_examples(tmp_path / "missing.jsonl")
    with pytest.raises(PipelineError, match="no examples"):
        read_examples(write_rows(tmp_path / "empty.jsonl"))
    with pytest.raises(PipelineError, match="no verbose example"):
        read_examples(write_rows(tmp_path / "one.jsonl", GOOD))
    (tmp_path / "latin.jsonl").write_bytes(json.dumps(GOOD).encode("utf-16"))
    with pytest.raises(PipelineError, match="not UTF-8"):
        read_examples(tmp_path / "latin.jsonl")


def test_shipped_data_is_what_the_issue_asks_for() -> None:
    examples = read_examples(TRAINING_DATA)
    questions = read_questions(HELD_OUT_QUESTIONS)
    assert len(examples) >= 320
    assert len(questions) >= 40
    counts = collections.Counter(example.style for example in examples)
    assert counts[Style.TERSE] == counts[Style.VERBOSE]
    assert len({example.completion for example in examples}) == len(examples)
    for question in questions:
        assert not any(word in question.lower() for word in ("briefly", "concise", "detailed", "well-structured"))
    prompts = {example.prompt.partition("\n")[2].lower() for example in examples}
    assert not prompts & {question.lower() for question in questions}


def test_labels_cover_the_completion_and_its_eos_only(tiny_tokenizer: Any) -> None:
    encoded = encode(tiny_tokenizer, Example(Style.TERSE, "<STYLE_TERSE>\nWhy?", "Because.", "x:1"), 100)
    labelled = [label for label in encoded.labels if label != IGNORED_LABEL]
    assert encoded.labels[: encoded.prompt_length] == [IGNORED_LABEL] * encoded.prompt_length
    assert labelled[-1] == tiny_tokenizer.eos_token_id
    assert tiny_tokenizer.decode(labelled[:-1]).strip() == "Because."
    style_id = tiny_tokenizer.convert_tokens_to_ids("<STYLE_TERSE>")
    assert style_id in encoded.input_ids[: encoded.prompt_length]
    assert style_id not in labelled


def test_an_answer_that_does_not_fit_is_refused_not_cut(tiny_tokenizer: Any) -> None:
    with pytest.raises(PipelineError, match=r"rows\.jsonl:7: \d+ tokens, more than 12"):
        encode(tiny_tokenizer, Example(Style.TERSE, "<STYLE_TERSE>\nWhy?", "Because of it.", "rows.jsonl:7"), 12)


def test_padding_is_masked_by_position_so_that_eos_as_pad_keeps_its_label() -> None:
    batch = collate([EncodedExample((5, 6, 2), 1), EncodedExample((5, 7, 8, 9, 2), 2)], pad_id=2)
    assert batch["input_ids"] == [[5, 6, 2, 2, 2], [5, 7, 8, 9, 2]]
    assert batch["attention_mask"] == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"] == [[-100, 6, 2, -100, -100], [-100, -100, 8, 9, 2]]


def test_every_window_holds_both_styles_sorted_by_length() -> None:
    examples = [Example(Style.VERBOSE if i % 3 == 0 else Style.TERSE, "q", "a", f"x:{i}") for i in range(48)]
    lengths = [(37 * i) % 101 for i in range(48)]
    order = training_order(examples, lengths, seed=3, window=12)
    assert sorted(order) == list(range(48))
    for start in range(0, 48, 12):
        window = order[start : start + 12]
        assert sum(examples[i].style is Style.VERBOSE for i in window) == 4
        assert [lengths[i] for i in window] == sorted(lengths[i] for i in window)


def test_the_order_is_a_shuffle_that_the_seed_decides() -> None:
    examples = [Example(Style.TERSE, "q", "a", f"x:{i}") for i in range(50)]
    for window in (None, 8):
        first, again, other = (training_order(examples, [1] * 50, seed=s, window=window) for s in (1, 1, 2))
        assert first == again != other
        assert sorted(first) == list(range(50)) != first


def test_a_part_of_the_data_keeps_the_styles_balanced() -> None:
    examples = read_examples(TRAINING_DATA)
    part = select(examples, 60)
    assert sum(example.style is Style.TERSE for example in part) == 30
    assert select(examples, None) == examples
    with pytest.raises(PipelineError, match="max_examples"):
        select(examples, 0)
