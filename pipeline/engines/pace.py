"""How long answers take, so that a request is refused at once rather than given up after its time."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from pipeline.config import Style

WEIGHT = 0.3
"""Of the latest answer in the running mean: a machine that gets slower shows within a few answers."""


class Pace:
    """A running mean of the seconds that one answer of each style takes."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = threading.Lock()
        self._seconds: dict[Style, float] = {}

    def note(self, style: Style, seconds: float) -> None:
        """Learn from one answer."""
        with self._lock:
            known = self._seconds.get(style, seconds)
            self._seconds[style] = known + WEIGHT * (seconds - known)

    def total_s(self, styles: Iterable[Style]) -> float:
        """Seconds that answers of these styles take one after the other; a style not seen yet counts nothing."""
        with self._lock:
            return sum(self._seconds.get(style, 0.0) for style in styles)
