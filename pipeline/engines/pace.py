"""Estimates of speed and answer length, so that a request is refused at once instead of timing out."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pipeline.config import Style

MEAN_WEIGHT, DEVIATION_WEIGHT = 1 / 8, 1 / 4
"""Weights of the latest value in the moving averages, as in TCP's round-trip estimate (RFC 6298)."""
DEVIATIONS = 3
"""Mean deviations above the mean; of normally distributed lengths 1 in 100 is longer."""
FIRST_DEVIATION = 1 / 6
"""Assumed deviation after the first answer, as a share of its length: an answer half as long again is expected."""


@dataclass(slots=True)
class _Lengths:
    mean: float
    deviation: float

    def add(self, tokens: int) -> None:
        self.deviation += DEVIATION_WEIGHT * (abs(tokens - self.mean) - self.deviation)
        self.mean += MEAN_WEIGHT * (tokens - self.mean)


class Pace:
    """Moving averages of token times and answer lengths; optimistic about what it has not seen."""

    def __init__(self) -> None:
        """Start without observations."""
        self._lock = threading.Lock()
        self._lengths: dict[Style, _Lengths] = {}
        self._token_s: dict[int, float] = {}

    def note_token(self, seconds: float | None, batch_size: int) -> None:
        """Record the seconds of a token at a batch size; None, as for a first token, is ignored."""
        if seconds is None:
            return
        with self._lock:
            known = self._token_s.get(batch_size, seconds)
            self._token_s[batch_size] = known + MEAN_WEIGHT * (seconds - known)

    def note_answer(self, style: Style, tokens: int) -> None:
        """Record the length of an answer."""
        with self._lock:
            if style in self._lengths:
                self._lengths[style].add(tokens)
            else:
                self._lengths[style] = _Lengths(tokens, FIRST_DEVIATION * tokens)

    def tokens(self, style: Style, most: int) -> float:
        """A length in tokens that few answers of a style exceed, at most ``most``; 0 for a style not seen yet."""
        with self._lock:
            known = self._lengths.get(style)
        return min(known.mean + DEVIATIONS * known.deviation, most) if known else 0.0

    def token_s(self, batch_size: int) -> float:
        """Seconds per token at a batch size; for an unseen one, those of the next smaller one."""
        with self._lock:
            seen = dict(self._token_s)
        fewer = [size for size in seen if size <= batch_size]
        return seen[max(fewer)] if fewer else min(seen.values(), default=0.0)
