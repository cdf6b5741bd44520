"""Rows without padding: what is put into them, how windows are cut and which lengths they have."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pipeline.config import TrainingConfig
from pipeline.data.batches import IGNORED_LABEL, pack, packed_batches, row_lengths

WINDOWS = TrainingConfig(micro_batch_size=4, accumulation_steps=4, stratify_windows=True)


def example(first: int, prompt: int, answer: int) -> dict[str, Any]:
    return {"input_ids": list(range(first, first + prompt + answer)), "prompt_length": prompt}


def test_a_row_holds_its_examples_one_after_the_other() -> None:
    row = pack([example(10, 2, 1), example(20, 1, 2)], pad_id=0, row_lengths=[4, 8, 16], places=3)
    assert row == {
        "input_ids": [[10, 11, 12, 20, 21, 22, 0, 0]],
        "position_ids": [[0, 1, 2, 0, 1, 2, 0, 1]],
        "labels": [[IGNORED_LABEL, IGNORED_LABEL, 12, IGNORED_LABEL, 21, 22, IGNORED_LABEL, IGNORED_LABEL]],
        "starts": [0, 3, 6, 8, 8],
        "tokens": 6,
    }


def test_a_full_row_has_nothing_that_fills_it() -> None:
    row = pack([example(10, 2, 2)], pad_id=0, row_lengths=[4], places=1)
    assert (row["input_ids"], row["starts"]) == ([[10, 11, 12, 13]], [0, 4, 4])


def columns(count: int) -> tuple[list[str], list[int]]:
    """Styles, and lengths of which a few are very long."""
    generator = random.Random(3)
    lengths = [generator.choice((30, 60, 120, 900)) for _ in range(count)]
    return [("terse", "verbose")[index % 2] for index in range(count)], lengths


@pytest.mark.parametrize("parts", [1, 2, 5, 16])
def test_every_window_becomes_that_many_rows(parts: int) -> None:
    styles, lengths = columns(64)
    whole = packed_batches(styles, lengths, WINDOWS, 1)
    rows = packed_batches(styles, lengths, WINDOWS, parts)
    assert len(rows) == parts * len(whole)  # the trainer counts rows to know where a step ends
    assert all(rows)
    for number, window in enumerate(whole):
        assert [index for row in rows[number * parts : (number + 1) * parts] for index in row] == window


def test_a_windows_longest_row_is_as_short_as_its_order_allows() -> None:
    lengths = [10, 10, 10, 10, 40, 40, 60, 90]
    window = packed_batches(["terse"] * 8, lengths, TrainingConfig(accumulation_steps=8, stratify_windows=True), 3)
    assert [sum(lengths[index] for index in row) for row in window] == [80, 100, 90]


def test_two_lengths_of_rows_are_chosen_for_the_least_filling() -> None:
    lengths = [60, 120, 130, 500]
    assert row_lengths([[0], [1], [2], [3]], lengths) == [192, 512]
    assert row_lengths([[0, 1]], lengths) == [192]


def test_no_row_is_longer_than_the_longest_length() -> None:
    styles, lengths = columns(64)
    batches = packed_batches(styles, lengths, WINDOWS, 2)
    allowed = row_lengths(batches, lengths)
    assert len(allowed) <= 2
    assert all(length % 64 == 0 for length in allowed)
    assert max(sum(lengths[index] for index in batch) for batch in batches) <= max(allowed)
