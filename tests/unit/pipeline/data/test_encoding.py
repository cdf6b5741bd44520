from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import Style
from pipeline.data.encoding import IGNORED_LABEL, EncodedExample, collate, encode, training_order
from pipeline.data.formats import Example
from pipeline.data.source import Problems


def example(completion: str, origin: str = "rows.jsonl:7") -> Example:
    return Example(Style.TERSE, "Why?", completion, origin)


def test_labels_cover_the_completion_and_its_eos_only(tiny_tokenizer: Any) -> None:
    (encoded,) = encode(tiny_tokenizer, [example("Because.")], 100, Problems())
    (labels,) = collate([encoded], pad_id=0)["labels"]
    assert labels[: encoded["prompt_length"]] == [IGNORED_LABEL] * encoded["prompt_length"]
    answer = labels[encoded["prompt_length"] :]
    assert answer[-1] == tiny_tokenizer.eos_token_id
    assert tiny_tokenizer.decode(answer[:-1]).strip() == "Because."
    style_id = tiny_tokenizer.convert_tokens_to_ids("<STYLE_TERSE>")
    assert style_id in encoded["input_ids"][: encoded["prompt_length"]]
    assert style_id not in answer


def test_many_examples_are_encoded_as_each_alone(tiny_tokenizer: Any) -> None:
    examples = [example("Because."), example("It was late, and dark."), example("No.")]
    together = encode(tiny_tokenizer, examples, 100, Problems())
    assert together == [encode(tiny_tokenizer, [each], 100, Problems())[0] for each in examples]


def test_an_answer_that_does_not_fit_is_refused_not_cut(tiny_tokenizer: Any) -> None:
    problems = Problems()
    assert encode(tiny_tokenizer, [example("Because of it.")], 12, problems) == []
    (shown,) = problems.shown
    assert shown.startswith("rows.jsonl:7: ")
    assert "tokens, more than 12" in shown


@pytest.mark.parametrize("spelled", ["</s>", "[INST]", "[/INST]"])
def test_a_text_that_spells_a_control_token_is_refused(tiny_tokenizer: Any, spelled: str) -> None:
    problems = Problems()
    assert encode(tiny_tokenizer, [example(f"Use {spelled} here.")], 100, problems) == []
    assert problems.shown == [f"rows.jsonl:7: contains {spelled}, a control token of the model; remove it."]


def test_padding_is_masked_by_position_so_that_eos_as_pad_keeps_its_label() -> None:
    rows = [
        EncodedExample(input_ids=[5, 6, 2], prompt_length=1),
        EncodedExample(input_ids=[5, 7, 8, 9, 2], prompt_length=2),
    ]
    batch = collate(rows, pad_id=2)
    assert batch["input_ids"] == [[5, 6, 2, 2, 2], [5, 7, 8, 9, 2]]
    assert batch["attention_mask"] == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"] == [[-100, 6, 2, -100, -100], [-100, -100, 8, 9, 2]]


def test_every_window_holds_both_styles_sorted_by_length() -> None:
    styles = ["verbose" if index % 3 == 0 else "terse" for index in range(48)]
    lengths = [(37 * index) % 101 for index in range(48)]
    order = training_order(styles, lengths, seed=3, window=12)
    assert sorted(order) == list(range(48))
    for start in range(0, 48, 12):
        window = order[start : start + 12]
        assert sum(styles[index] == "verbose" for index in window) == 4
        assert [lengths[index] for index in window] == sorted(lengths[index] for index in window)


def test_the_order_is_a_shuffle_that_the_seed_decides() -> None:
    for window in (None, 8):
        first, again, other = (training_order(["terse"] * 50, [1] * 50, seed=s, window=window) for s in (1, 1, 2))
        assert first == again != other
        assert sorted(first) == list(range(50)) != first


def test_every_pass_is_shuffled_anew_and_the_first_does_not_depend_on_the_rest() -> None:
    styles = ["terse", "verbose"] * 24
    once, twice = (training_order(styles, [1] * 48, seed=1, window=4, epochs=passes) for passes in (1, 2))
    first, second = twice[:48], twice[48:]
    assert first == once != second
    assert sorted(second) == list(range(48))
    assert all({styles[index] for index in twice[start : start + 4]} == set(Style) for start in range(0, 96, 4))
