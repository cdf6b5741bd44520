"""How fast answers come, so that a request is refused at once rather than given up after its time."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pipeline.config import Style

MEAN_WEIGHT, DEVIATION_WEIGHT = 1 / 8, 1 / 4
"""Of the latest in what is remembered: those with which TCP foresees round trips (RFC 6298)."""
DEVIATIONS = 3
"""Above the mean; of lengths that are distributed normally, 1 in 100 is longer."""
FIRST_DEVIATION = 1 / 6
"""Of the first answer's length, before there is a second: half as much again is foreseen."""


@dataclass(slots=True)
class _Lengths:
    mean: float
    deviation: float

    def add(self, tokens: int) -> None:
        self.deviation += DEVIATION_WEIGHT * (abs(tokens - self.mean) - self.deviation)
        self.mean += MEAN_WEIGHT * (tokens - self.mean)


class Pace:
    """What the latest tokens and answers took; of what it has not seen it expects nothing bad."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = threading.Lock()
        self._lengths: dict[Style, _Lengths] = {}
        self._token_s: dict[int, float] = {}

    def note_token(self, seconds: float | None, batch_size: int) -> None:
        """Learn how long a token took with ``batch_size`` answers decoded together; nothing of an answer's first."""
        if seconds is None:
            return
        with self._lock:
            known = self._token_s.get(batch_size, seconds)
            self._token_s[batch_size] = known + MEAN_WEIGHT * (seconds - known)

    def note_answer(self, style: Style, tokens: int) -> None:
        """Learn how long an answer of a style is."""
        with self._lock:
            if style in self._lengths:
                self._lengths[style].add(tokens)
            else:
                self._lengths[style] = _Lengths(tokens, FIRST_DEVIATION * tokens)

    def tokens(self, style: Style, most: int) -> float:
        """Tokens that few answers of a style exceed, at most ``most``; 0 for a style not seen yet."""
        with self._lock:
            known = self._lengths.get(style)
        return min(known.mean + DEVIATIONS * known.deviation, most) if known else 0.0

    def token_s(self, batch_size: int) -> float:
        """Seconds that a token takes with so many answers decoded together; of an unseen number, as with fewer."""
        with self._lock:
            seen = dict(self._token_s)
        fewer = [size for size in seen if size <= batch_size]
        return seen[max(fewer)] if fewer else min(seen.values(), default=0.0)
