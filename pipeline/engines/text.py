"""Handing out a text while it grows."""

from __future__ import annotations

import re

_WHOLE_WORDS = re.compile(r"\s*(.*\S)(?=\s)", re.DOTALL)
"""Everything up to the end of the last word that is followed by white space."""


class TextDeltas:
    """Cuts a growing text at the ends of words, where what comes later changes nothing any more."""

    def __init__(self) -> None:
        """Start before the first word."""
        self._length = 0

    def next(self, text: str) -> str:
        """What is new, given all the text so far; often empty."""
        words = _WHOLE_WORDS.match(text)
        whole = words[1] if words else ""
        delta = whole[self._length :]
        self._length = max(self._length, len(whole))
        return delta
