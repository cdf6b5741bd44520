"""Streaming a text while it is generated."""

from __future__ import annotations

import re

_COMPLETE_WORDS = re.compile(r"\s*(.*\S)(?=\s)", re.DOTALL)
"""Everything up to the last word that is followed by white space."""


class TextDeltas:
    """Splits a growing text at the ends of words, which later tokens cannot change."""

    def __init__(self) -> None:
        """Start with an empty text."""
        self._length = 0

    def next(self, text: str) -> str:
        """The new complete words, given the full text so far; often empty."""
        words = _COMPLETE_WORDS.match(text)
        complete = words[1] if words else ""
        delta = complete[self._length :]
        self._length = max(self._length, len(complete))
        return delta
