from __future__ import annotations

import random
from typing import Any

import pytest

from pipeline.engines.text import TextDeltas
from pipeline.generation.generate import answer_text


@pytest.mark.parametrize(
    ("texts", "pieces"),
    [
        (["Ca", "Caching", "Caching is", "Caching is fast."], ["", "", "Caching", " is"]),
        (["One", "One ", "One \n\n", "One \n\ntwo", "One \n\ntwo three"], ["", "One", "", "", " \n\ntwo"]),
        (["caf\ufffd", "café", "café au"], ["", "", "café"]),
        (["", " ", "\n"], ["", "", ""]),
    ],
)
def test_deltas_end_at_the_ends_of_words(texts: list[str], pieces: list[str]) -> None:
    cutter = TextDeltas()
    assert [cutter.next(text) for text in texts] == pieces


def test_deltas_of_any_tokens_are_the_beginning_of_the_text(tiny_tokenizer: Any) -> None:
    draw = random.Random(0)
    for _ in range(50):
        answer = [draw.randrange(3, len(tiny_tokenizer)) for _ in range(40)]
        cutter = TextDeltas()
        joined = "".join(
            cutter.next(answer_text(answer[: length + 1], tiny_tokenizer)) for length in range(len(answer))
        )
        assert answer_text(answer, tiny_tokenizer).startswith(joined)
        assert joined
