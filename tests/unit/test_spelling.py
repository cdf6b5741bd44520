"""An answer's text is read with the tokens that the judged model could have sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from acceptance.spelling import MOST_READINGS, fewest_outside


class Sampled:
    """A model that said these tokens and nothing else; where the text so far is not one that it said it is at a loss.

    Attributes:
        readings: How often it was asked.
    """

    def __init__(self, tokenizer: Any, ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._following = {self._text(ids[:place]): token for place, token in enumerate(ids)}
        self.readings = 0

    def __call__(self, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        self.readings += 1
        likely = torch.full((len(ids), len(self._tokenizer)), -torch.inf)
        for place in range(len(ids)):
            if (token := self._following.get(self._text(ids[:place]))) is not None:
                likely[place, token] = 0.0
        return likely, torch.tensor(ids)

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))


@pytest.fixture(params=["sentencepiece", "bytes"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue({"sentencepiece": "tiny_tokenizer", "bytes": "embedded_tokenizer"}[request.param])


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return [*tokenizer(text, add_special_tokens=False)["input_ids"]]


def read_text(tokenizer: Any, sampled: Sequence[int]) -> tuple[tuple[int, int], Sampled]:
    """What is found of a text as its client saw it, and the model."""
    model = Sampled(tokenizer, sampled)
    text = tokenizer.decode(sampled, clean_up_tokenization_spaces=False)
    return fewest_outside(tokenizer, ids_of(tokenizer, text), model), model


def letters(tokenizer: Any, word: str) -> list[int]:
    """The word letter by letter, as no tokenizer spells it."""
    return [token for letter in word for token in ids_of(tokenizer, f"\n{letter}")[len(ids_of(tokenizer, "\n")) :]]


def test_a_text_that_is_spelled_as_usual_is_read_once(tokenizer: Any) -> None:
    ids = ids_of(tokenizer, "It keeps results that are asked for again.")
    found, model = read_text(tokenizer, ids)
    assert (found, model.readings) == ((0, len(ids)), 1)


@pytest.mark.parametrize("word", ["echo", "lnts"])
def test_an_unusual_spelling_is_found(tokenizer: Any, word: str) -> None:
    before, after = ids_of(tokenizer, "They use a"), ids_of(tokenizer, "of them")
    sampled = [*before, *letters(tokenizer, word), *after]
    found, _ = read_text(tokenizer, sampled)
    assert found == (0, len(sampled))


def test_bytes_that_are_no_character_are_found(embedded_tokenizer: Any) -> None:
    (half, *_) = ids_of(embedded_tokenizer, "\U00013000")
    before, after = (ids_of(embedded_tokenizer, text) for text in ("Eight tiny", " colours of light"))
    sampled = [*before, half, *after]
    assert "\N{REPLACEMENT CHARACTER}" in embedded_tokenizer.decode(sampled)
    found, _ = read_text(embedded_tokenizer, sampled)
    assert found == (0, len(sampled))


def test_another_models_text_stays_foreign(tokenizer: Any) -> None:
    ids = ids_of(tokenizer, "Whales sing to each other over great distances, and calves learn the songs.")
    model = Sampled(tokenizer, ids_of(tokenizer, "Bread rises because yeast makes gas, and the dough holds it."))
    assert fewest_outside(tokenizer, ids, model) == (len(ids), len(ids))
    assert model.readings <= 1 + MOST_READINGS
