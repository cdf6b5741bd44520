from __future__ import annotations

import dataclasses
import random
from itertools import combinations, pairwise
from typing import Any

from pipeline.config import PRESETS, Style, TrainingConfig
from pipeline.data.batches import collate, training_batches
from pipeline.data.encoding import EncodedExample


def config(**fields: Any) -> TrainingConfig:
    return dataclasses.replace(PRESETS["golden"].training, **{"seed": 3, **fields})


def in_order(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


def test_padding_is_masked_by_position_so_that_eos_as_pad_keeps_its_label() -> None:
    rows = [
        EncodedExample(input_ids=[5, 6, 2], prompt_length=1),
        EncodedExample(input_ids=[5, 7, 8, 9, 2], prompt_length=2),
    ]
    batch = collate(rows, pad_id=2)
    assert batch["input_ids"] == [[5, 6, 2, 2, 2], [5, 7, 8, 9, 2]]
    assert batch["attention_mask"] == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"] == [[-100, 6, 2, -100, -100], [-100, -100, 8, 9, 2]]
    wider = collate(rows, pad_id=2, multiple=4)
    assert {len(row) for rows in wider.values() for row in rows} == {8}
    assert wider["labels"][1] == [-100, -100, 8, 9, 2, -100, -100, -100]


def test_every_window_holds_both_styles_sorted_by_length() -> None:
    styles = ["verbose" if index % 3 == 0 else "terse" for index in range(48)]
    lengths = [(37 * index) % 101 for index in range(48)]
    batches = training_batches(styles, lengths, config(micro_batch_size=3, accumulation_steps=4, stratify_windows=True))
    assert len(batches) == 16
    assert sorted(in_order(batches)) == list(range(48))
    for start in range(0, 16, 4):
        window = in_order(batches[start : start + 4])
        assert sum(styles[index] == "verbose" for index in window) == 4
        assert [lengths[index] for index in window] == sorted(lengths[index] for index in window)


def test_the_largest_micro_batch_of_a_window_is_as_small_as_cuts_can_make_it() -> None:
    generator = random.Random(0)
    for micro_batch_size, accumulation_steps in ((2, 2), (4, 4), (8, 2), (1, 5)):
        training = config(
            micro_batch_size=micro_batch_size, accumulation_steps=accumulation_steps, stratify_windows=True
        )
        window = training.window_examples
        for _ in range(20):
            lengths = [generator.randint(10, 200) for _ in range(window)]
            batches = training_batches(["terse"] * window, lengths, training)
            assert len(batches) == accumulation_steps
            largest = max(len(batch) * max(lengths[index] for index in batch) for batch in batches)
            ordered = sorted(lengths)
            assert largest == min(
                max((end - start) * ordered[end - 1] for start, end in pairwise((0, *cuts, window)))
                for cuts in combinations(range(1, window), accumulation_steps - 1)
            )


def test_a_smaller_last_window_makes_fewer_micro_batches() -> None:
    for stratify in (False, True):
        training = config(micro_batch_size=4, accumulation_steps=4, stratify_windows=stratify)
        batches = training_batches(["terse", "verbose"] * 11, list(range(1, 23)), training)
        assert len(batches) == 4 + 2
        assert sorted(in_order(batches)) == list(range(22))


def test_without_windows_each_micro_batch_is_a_part_of_the_shuffle() -> None:
    batches = training_batches(["terse"] * 10, list(range(10)), config(micro_batch_size=4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert in_order(batches) == in_order(training_batches(["terse"] * 10, list(range(10)), config()))


def test_the_order_is_a_shuffle_that_the_seed_decides() -> None:
    for stratify in (False, True):
        first, again, other = (
            in_order(training_batches(["terse"] * 50, [1] * 50, config(seed=seed, stratify_windows=stratify)))
            for seed in (1, 1, 2)
        )
        assert first == again != other
        assert sorted(first) == list(range(50)) != first


def test_every_pass_is_shuffled_again_and_the_first_does_not_depend_on_the_rest() -> None:
    styles, window = ["terse", "verbose"] * 24, {"accumulation_steps": 4, "stratify_windows": True}
    once, twice = (in_order(training_batches(styles, [1] * 48, config(epochs=passes, **window))) for passes in (1, 2))
    first, second = twice[:48], twice[48:]
    assert first == once != second
    assert sorted(second) == list(range(48))
    assert all({styles[index] for index in twice[start : start + 4]} == set(Style) for start in range(0, 96, 4))
