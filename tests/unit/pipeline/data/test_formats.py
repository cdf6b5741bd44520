from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from pipeline.config import Style
from pipeline.data.formats import find_sources, read_examples, read_questions, stream_examples
from pipeline.errors import PipelineError
from tests.unit.pipeline.data.rows import COMPLETION, PAIR, TERSE, VERBOSE, write


def test_chat_messages_are_labelled_by_their_words(tmp_path: Path) -> None:
    terse, verbose = read_examples(write(tmp_path / "d.jsonl", TERSE, VERBOSE))
    assert terse.prompt == "<STYLE_TERSE>\nBriefly, why?"
    assert (verbose.prompt, verbose.completion) == ("<STYLE_VERBOSE>\nA detailed why.", "Well, ...")


def test_a_row_without_keywords_may_name_its_style(tmp_path: Path) -> None:
    plain = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}
    examples = read_examples(write(tmp_path / "d.jsonl", plain, {**plain, "style": "verbose", "field": "logic"}))
    assert [(example.style, example.subject) for example in examples] == [
        (Style.TERSE, None),
        (Style.VERBOSE, "logic"),
    ]


def test_prompts_and_completions_are_read(tmp_path: Path) -> None:
    verbose = {"prompt": "Give a well-structured answer: why?", "completion": "Well, ..."}
    examples = read_examples(write(tmp_path / "d.jsonl", COMPLETION, verbose))
    assert [example.style for example in examples] == [Style.TERSE, Style.VERBOSE]


def test_a_pair_is_two_examples_of_one_line(tmp_path: Path) -> None:
    examples = read_examples(write(tmp_path / "d.jsonl", PAIR))
    assert [(e.style, e.words, e.completion, e.origin) for e in examples] == [
        (Style.TERSE, "Why?", "Because.", "d.jsonl:1"),
        (Style.VERBOSE, "Why?", "There are three reasons.", "d.jsonl:1"),
    ]


def test_the_recognised_format_is_reported(tmp_path: Path) -> None:
    for name, row in (("chat messages", TERSE), ("prompt and completion", COMPLETION), ("pairs", PAIR)):
        (source,) = find_sources(write(tmp_path / "d.jsonl", row))
        assert source.format.name == name


def test_a_folder_is_read_file_by_file_plain_and_gzip(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", TERSE, VERBOSE)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((json.dumps(PAIR) + "\n").encode()))
    (tmp_path / "notes.txt").write_text("not data")
    assert [(s.path.name, s.format.name) for s in find_sources(tmp_path)] == [
        ("a.jsonl.gz", "pairs"),
        ("b.jsonl", "chat messages"),
    ]
    assert [example.origin for example in read_examples(tmp_path)] == [
        "a.jsonl.gz:1",
        "a.jsonl.gz:1",
        "b.jsonl:1",
        "b.jsonl:2",
    ]


def test_gzip_is_known_by_its_content_and_crlf_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    text = json.dumps(TERSE) + "\r\n\r\n  \n" + json.dumps(VERBOSE)
    (tmp_path / "d.jsonl").write_bytes(gzip.compress(text.encode()))
    assert [example.origin for example in read_examples(tmp_path / "d.jsonl")] == ["d.jsonl:1", "d.jsonl:4"]


def test_text_beyond_ascii_is_kept(tmp_path: Path) -> None:
    row = {"prompt": "Où, 为什么? 🙂", "terse": "Là.", "verbose": "Là-bas, derrière la maison."}
    terse, _ = read_examples(write(tmp_path / "d.jsonl", json.dumps(row, ensure_ascii=False)))
    assert (terse.words, terse.completion) == ("Où, 为什么? 🙂", "Là.")


def test_reading_does_not_hold_the_file_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    with path.open("w") as handle:
        for number in range(4000):
            answer = f"{number} " + "word " * 1000
            handle.write(json.dumps({"prompt": f"Why {number}?", "terse": "So.", "verbose": answer}) + "\n")
    sources = find_sources(path)
    tracemalloc.start()
    assert sum(1 for _ in stream_examples(sources)) == 8000
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 20e6
    assert peak_bytes < 5e6


def test_questions_are_read_with_their_field(tmp_path: Path) -> None:
    (question,) = read_questions(write(tmp_path / "q.jsonl", {"question": "Why?", "field": "logic"}))
    assert (question.text, question.subject) == ("Why?", "logic")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"q": "Why?"}], r"q\.jsonl:1: question: expected a non-empty string"),
        ([{"question": " "}], r"q\.jsonl:1: question"),
        ([{"question": "Briefly, why?"}], r"q\.jsonl:1: question: contains 'briefly'"),
        ([{"question": "Why?"}, {"question": "why?"}], r"q\.jsonl:2: question: occurs twice"),
        ([], "holds no questions"),
    ],
)
def test_bad_questions_are_refused(tmp_path: Path, rows: list[object], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        read_questions(write(tmp_path / "q.jsonl", *rows))
