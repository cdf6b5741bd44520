from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Style
from pipeline.data.encoding import encode
from pipeline.data.formats import find_sources, read_examples
from pipeline.data.source import Problems
from pipeline.data.store import EncodingRequest, encoded_dataset
from pipeline.errors import PipelineError
from tests.unit.pipeline.data.rows import PAIR, write

PAIRS = [{**PAIR, "prompt": f"Why {number}?"} for number in range(600)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VERBOSITY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def request(path: Path, tokenizer: Any, **fields: Any) -> EncodingRequest:
    values = {"tokenizer_sha256": "t", "max_tokens": 100, "max_examples": None, **fields}
    return EncodingRequest(find_sources(path), tokenizer, **values)


def test_rows_are_the_examples_in_file_order(tmp_path: Path, tiny_tokenizer: Any) -> None:
    path = write(tmp_path / "d.jsonl", *PAIRS)
    dataset = encoded_dataset(request(path, tiny_tokenizer))
    expected = encode(tiny_tokenizer, read_examples(path), 100, Problems())
    assert len(dataset) == 1200
    assert [row["input_ids"] for row in dataset] == [row["input_ids"] for row in expected]
    assert list(dataset["prompt_length"]) == [row["prompt_length"] for row in expected]
    assert list(dataset["length"]) == [len(row["input_ids"]) for row in expected]
    assert list(dataset["style"]) == [Style.TERSE, Style.VERBOSE] * 600


def test_what_was_tokenised_once_is_memory_mapped_from_the_cache(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    path = write(tmp_path / "d.jsonl", *PAIRS)
    first = encoded_dataset(request(path, tiny_tokenizer))
    assert Path(first.cache_files[0]["filename"]).is_relative_to(own_cache)
    monkeypatch.setattr("pipeline.data.store.encode", None)
    assert encoded_dataset(request(path, tiny_tokenizer)).to_list() == first.to_list()


@pytest.mark.parametrize("change", [{"max_tokens": 99}, {"max_examples": 10}, {"tokenizer_sha256": "u"}], ids=str)
def test_what_decides_the_tokens_decides_the_cache(tmp_path: Path, tiny_tokenizer: Any, change: dict[str, Any]) -> None:
    path = write(tmp_path / "d.jsonl", *PAIRS[:5])
    assert request(path, tiny_tokenizer).key != request(path, tiny_tokenizer, **change).key
    before = request(path, tiny_tokenizer).key
    write(path, *PAIRS[:6])
    assert request(path, tiny_tokenizer).key != before


def test_the_first_examples_are_kept_and_the_rest_is_checked_all_the_same(tmp_path: Path, tiny_tokenizer: Any) -> None:
    path = write(tmp_path / "d.jsonl", *PAIRS)
    whole = encoded_dataset(request(path, tiny_tokenizer))
    part = encoded_dataset(request(path, tiny_tokenizer, max_examples=60))
    assert part.to_list() == whole.select(range(60)).to_list()
    write(path, *PAIRS, {**PAIR, "verbose": ""})
    with pytest.raises(PipelineError, match=r"d\.jsonl:601: verbose"):
        encoded_dataset(request(path, tiny_tokenizer, max_examples=60))


def test_refused_data_leaves_nothing_behind(tmp_path: Path, tiny_tokenizer: Any, own_cache: Path) -> None:
    path = write(tmp_path / "d.jsonl", *PAIRS, {**PAIR, "prompt": "Which?", "verbose": "word " * 200})
    with pytest.raises(PipelineError, match=r"d\.jsonl:601: \d+ tokens, more than 100"):
        encoded_dataset(request(path, tiny_tokenizer))
    assert [entry for entry in (own_cache / "data").iterdir() if entry.is_dir()] == []


def test_fewer_than_one_example_is_refused(tmp_path: Path, tiny_tokenizer: Any) -> None:
    with pytest.raises(PipelineError, match="max_examples must be at least 1"):
        encoded_dataset(request(write(tmp_path / "d.jsonl", PAIR), tiny_tokenizer, max_examples=0))
