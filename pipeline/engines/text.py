"""Turning token ids into text while they come."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_WHOLE_WORDS = re.compile(r"\s*(.*\S)(?=\s)", re.DOTALL)
"""Everything up to the end of the last word that another character than its own follows."""


class PieceMaker:
    """Cuts a growing answer into pieces that end at a word's end, where later tokens change nothing any more."""

    def __init__(self, tokenizer: Any) -> None:
        """Decode with ``tokenizer``, special tokens left out."""
        self._tokenizer = tokenizer
        self._length = 0

    def piece(self, answer: Sequence[int]) -> str:
        """What is new in the answer, given all its token ids so far; often empty."""
        words = _WHOLE_WORDS.match(self._tokenizer.decode(answer, skip_special_tokens=True))
        text = words[1] if words else ""
        piece = text[self._length :]
        self._length = max(self._length, len(text))
        return piece
