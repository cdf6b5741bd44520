"""Which tokens a text was made of: a server sends words, and there are several ways to spell some of them.

What a tokenizer makes of a text need not be what a model sampled: rare words have several spellings, and bytes that are
no character arrive as U+FFFD. Read with the wrong tokens, an answer of the judged model looks foreign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

MOST_READINGS = 8
"""How often one answer is read again; each is a pass of the model."""
MOST_REPLACEMENTS = 64
"""Likeliest tokens that are tried in place of one outside the nucleus."""
ANCHOR = "\n"
"""Stands before the rest of a text: tokenizers treat a text's beginning in another way, and nothing joins it."""

Read = Callable[[Sequence[int]], tuple[Tensor, Tensor]]
"""Reads token ids: log-probabilities from which each token is sampled, shape (tokens, vocabulary), and the tokens."""


def fewest_outside(tokenizer: Any, ids: Sequence[int], read: Read) -> tuple[int, int]:
    """Respell a text from its beginning on, as long as that leaves no more tokens outside the nucleus.

    At a token outside, a likely one with which the text can go on takes its place; the rest is tokenized again.

    Args:
        tokenizer: The model's tokenizer.
        ids: The text as the tokenizer spells it.
        read: Reads a spelling.

    Returns:
        Tokens outside the nucleus, and all tokens, of the best spelling.
    """
    spelling, text, left, done = list(ids), _text(tokenizer, ids), MOST_READINGS, 0
    likely, tokens = read(spelling)
    outside = _outside(likely, tokens)
    while left and (places := [place for place in outside if done <= place < len(spelling)]):
        done = places[0] + 1
        for other in _respelled(tokenizer, spelling, places[0], likely[places[0]], text):
            left -= 1
            read_again = read(other)
            # As many are a step on the way where a word was spelled letter by letter.
            if len(no_more := _outside(*read_again)) <= len(outside):
                spelling, outside, (likely, tokens) = other, no_more, read_again
                break
            if not left:
                break
    return len(outside), len(tokens)


def _outside(likely: Tensor, tokens: Tensor) -> list[int]:
    places: list[int] = likely.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).isneginf().nonzero().flatten().tolist()
    return places


def _respelled(tokenizer: Any, ids: Sequence[int], place: int, likely: Tensor, text: str) -> Iterator[list[int]]:
    """The text with another token at a place, the likeliest first."""
    best = likely.topk(min(MOST_REPLACEMENTS, len(likely)))
    for token, log_probability in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        if log_probability == float("-inf"):
            return  # the nucleus ends here
        beginning = [*ids[:place], token]
        spelled = _text(tokenizer, beginning)
        if token == ids[place] or not text.startswith(spelled):
            continue
        other = beginning + _rest(tokenizer, text[len(spelled) :])
        if _text(tokenizer, other) == text:
            yield other


def _rest(tokenizer: Any, text: str) -> list[int]:
    anchor, ids = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (ANCHOR, ANCHOR + text))
    if ids[: len(anchor)] == anchor:
        rest: list[int] = ids[len(anchor) :]
        return rest
    return [*tokenizer(text, add_special_tokens=False)["input_ids"]]


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
