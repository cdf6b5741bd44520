"""Every way in which a user's file can be wrong: refused by file, line and field, and nothing of it used."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pipeline.data.formats import read_examples
from pipeline.errors import PipelineError
from tests.unit.pipeline.data.rows import COMPLETION, PAIR, TERSE, VERBOSE, jsonl, message, write

DEEP = "[" * 100_000 + "]" * 100_000

BAD_FILES = [
    pytest.param(b"", r"bad\.jsonl: holds no examples", id="empty"),
    pytest.param(b"\n  \n", r"bad\.jsonl: holds no examples", id="blank lines only"),
    pytest.param(b"\xef\xbb\xbf" + jsonl(TERSE, VERBOSE), r"bad\.jsonl:1: starts with a byte-order mark", id="bom"),
    pytest.param(jsonl(TERSE, VERBOSE).decode().encode("utf-16"), r"bad\.jsonl:1: not UTF-8 but UTF-16", id="utf-16"),
    pytest.param(gzip.compress(jsonl(TERSE, VERBOSE))[:-8], r"bad\.jsonl:3: the gzip data is damaged", id="cut gzip"),
    pytest.param(b"\x1f\x8bnot gzip at all", r"bad\.jsonl:1: the gzip data is damaged", id="false gzip"),
    pytest.param(jsonl([TERSE, VERBOSE]), r"bad\.jsonl:1: holds a JSON array", id="one array"),
    pytest.param(jsonl({"text": "hello"}), r"bad\.jsonl:1: no known format \(keys: text\); expected chat", id="keys"),
    pytest.param(jsonl(TERSE), r"bad\.jsonl: no verbose example; a prompt with 'detailed'", id="terse only"),
    pytest.param(jsonl(VERBOSE), r"bad\.jsonl: no terse example; a prompt with 'briefly'", id="verbose only"),
]

BAD_ROWS = [
    pytest.param("{not json", r"not JSON \(Expecting property name .* at column 2\)", id="json"),
    pytest.param('{"messages": [', "not JSON", id="cut json"),
    pytest.param('"text"', "holds a JSON str", id="string"),
    pytest.param("7", "holds a JSON int", id="number"),
    pytest.param("null", "holds a JSON NoneType", id="null"),
    pytest.param('{"messages": [], "messages": []}', "the key 'messages' occurs twice", id="repeated key"),
    pytest.param('{"messages": [], "score": NaN}', "NaN is not a JSON value", id="nan"),
    pytest.param(DEEP, "not usable JSON", id="deep"),
    pytest.param({"text": "hello"}, "messages: missing; the file is chat messages", id="other keys"),
    pytest.param(PAIR, "messages: missing; the file is chat messages", id="another format"),
    pytest.param({"messages": "hello"}, "messages: not a list", id="messages no list"),
    pytest.param({"messages": []}, "messages: 0 entries", id="no messages"),
    pytest.param({"messages": ["Why?", "Because."]}, r"messages\[0\].role", id="messages are strings"),
    pytest.param({"messages": TERSE["messages"][:1]}, "messages: 1 entries", id="no answer"),
    pytest.param({"messages": TERSE["messages"] * 2}, "messages: 4 entries", id="several turns"),
    pytest.param({"messages": TERSE["messages"][::-1]}, r"messages\[0\].role: expected \"user\"", id="roles swapped"),
    pytest.param(
        {"messages": [{"role": "system", "content": "x"}, *TERSE["messages"]]},
        r"messages\[0\].role: a system message",
        id="system message",
    ),
    pytest.param(message(0, role="system"), r"messages\[0\].role: a system message", id="system instead of user"),
    pytest.param(message(0, role=None), r"messages\[0\].role: expected \"user\"", id="no role"),
    pytest.param(message(1, role="user"), r"messages\[1\].role: expected \"assistant\"", id="two users"),
    pytest.param(message(1, content=""), r"messages\[1\].content: expected a non-empty string", id="empty answer"),
    pytest.param(message(1, content=" \n"), r"messages\[1\].content: expected a non-empty", id="blank answer"),
    pytest.param(message(0, content=None), r"messages\[0\].content: expected a non-empty", id="null prompt"),
    pytest.param(message(1, content=[{"type": "text"}]), r"messages\[1\].content: expected", id="content parts"),
    pytest.param(message(0, content="<STYLE_TERSE> hi"), r"messages\[0\].content: contains <STYLE_TERSE>", id="token"),
    pytest.param(message(1, content="<STYLE_VERBOSE>"), r"messages\[1\].content: contains", id="token in answer"),
    pytest.param(
        message(0, content="Brief\x00ly"), r"messages\[0\].content: holds the control character U\+0000", id="nul"
    ),
    pytest.param(
        message(1, content="\ud83d"), r"messages\[1\].content: contains half a surrogate pair", id="surrogate"
    ),
    pytest.param(
        message(0, content="A detailed but concise answer"),
        r"messages\[0\].content: asks for both styles \('concise' and 'detailed'\)",
        id="keywords of both styles",
    ),
    pytest.param({**TERSE, "style": "chatty"}, "style: 'chatty'; leave it out", id="unknown style"),
    pytest.param({**TERSE, "style": ["terse"]}, "style: ", id="style list"),
    pytest.param({**TERSE, "style": 1}, "style: 1; leave it out", id="style no string"),
    pytest.param({**TERSE, "style": "verbose"}, "says 'briefly', but the style is verbose", id="style against words"),
    pytest.param({**TERSE, "field": 3}, "field: expected a string", id="field"),
    pytest.param(TERSE, r"the same terse example as rows\.jsonl:1", id="duplicate"),
    pytest.param("x" * (1 << 20) + "x", "longer than 1048576 bytes", id="endless line"),
]

BAD_OTHER_FORMATS = [
    pytest.param({**COMPLETION, "completion": ""}, "completion: expected a non-empty string", id="empty completion"),
    pytest.param({**COMPLETION, "prompt": [{"role": "user"}]}, "prompt: expected a non-empty string", id="prompt list"),
    pytest.param({"prompt": "Why?"}, "no known format", id="no completion"),
    pytest.param({**PAIR, "verbose": " "}, "verbose: expected a non-empty string", id="empty verbose"),
    pytest.param({**PAIR, "terse": None}, "terse: expected a non-empty string", id="null terse"),
    pytest.param({**PAIR, "verbose": "Because."}, "verbose: the same text as terse", id="equal answers"),
    pytest.param({**PAIR, "prompt": "Briefly, why?"}, "prompt: says 'briefly', but a pair", id="keyword in a pair"),
    pytest.param({"prompt": "Why?", "terse": "So."}, "no known format", id="half a pair"),
]


@pytest.mark.parametrize(("content", "expected"), BAD_FILES)
def test_a_bad_file_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(PipelineError, match=expected):
        read_examples(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(("row", "expected"), BAD_ROWS)
def test_a_bad_row_is_refused_by_file_line_and_field(tmp_path: Path, row: object, expected: str) -> None:
    path = write(tmp_path / "rows.jsonl", TERSE, VERBOSE, row)
    with pytest.raises(PipelineError, match=r"^rows\.jsonl:3: .*" + expected):
        read_examples(path)


@pytest.mark.parametrize(("row", "expected"), BAD_OTHER_FORMATS)
def test_a_bad_row_of_the_other_formats_is_refused(tmp_path: Path, row: object, expected: str) -> None:
    with pytest.raises(PipelineError, match=r"rows\.jsonl:1: .*" + expected):
        read_examples(write(tmp_path / "rows.jsonl", row))


def test_a_line_in_another_encoding_is_named(tmp_path: Path) -> None:
    latin = json.dumps(TERSE | {"field": "café"}, ensure_ascii=False).encode("latin-1")
    (tmp_path / "rows.jsonl").write_bytes(jsonl(VERBOSE) + latin + b"\n")
    with pytest.raises(PipelineError, match=r"rows\.jsonl:2: not UTF-8 \(byte 0xe9 at \d+\); save the file as UTF-8"):
        read_examples(tmp_path / "rows.jsonl")


def test_paths_without_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"missing\.jsonl: cannot be read"):
        read_examples(tmp_path / "missing.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PipelineError, match=r"folder: the folder holds no \*\.jsonl"):
        read_examples(tmp_path / "folder")


def test_one_bad_file_of_a_folder_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", TERSE, VERBOSE)
    write(tmp_path / "b.jsonl", message(1, content=""))
    with pytest.raises(PipelineError, match=r"b\.jsonl:1: messages\[1\]"):
        read_examples(tmp_path)


def test_a_duplicate_is_found_across_files(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", TERSE, VERBOSE)
    write(tmp_path / "b.jsonl", TERSE)
    with pytest.raises(PipelineError, match=r"b\.jsonl:1: the same terse example as a\.jsonl:1"):
        read_examples(tmp_path)


def test_all_problems_are_reported_at_once_and_counted(tmp_path: Path) -> None:
    rows = [TERSE, VERBOSE, *(message(1, content="") for _ in range(25))]
    with pytest.raises(PipelineError) as error:
        read_examples(write(tmp_path / "rows.jsonl", *rows))
    lines = str(error.value).splitlines()
    assert [line.partition(": ")[0] for line in lines[:-1]] == [f"rows.jsonl:{number}" for number in range(3, 13)]
    assert lines[-1] == "... and 15 more problems."
