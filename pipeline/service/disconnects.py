"""Detecting clients that disconnect while their answer is generated."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable

logger = logging.getLogger(__name__)
INTERVAL_S = 0.1
"""How often connections are checked; a disconnected client's slot is freed within about this time."""


class DisconnectWatch:
    """One thread that checks the connections of all waiting requests; it starts with the first request."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._changed = threading.Condition()
        self._watched: dict[Hashable, tuple[Callable[[], bool], Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None

    def add(self, name: Hashable, gone: Callable[[], bool], give_up: Callable[[], None]) -> None:
        """Call ``give_up`` once as soon as ``gone`` returns True."""
        with self._changed:
            self._watched[name] = (gone, give_up)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="disconnects", daemon=True)
                self._thread.start()
            self._changed.notify()

    def remove(self, name: Hashable) -> None:
        """Stop watching; no effect if ``name`` is not watched."""
        with self._changed:
            self._watched.pop(name, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._watched))
                watched = list(self._watched.items())
            for name, (gone, give_up) in watched:
                if not gone():
                    continue
                self.remove(name)
                try:
                    give_up()
                except Exception as error:  # the thread must keep watching the others
                    logger.error("an abandoned answer could not be stopped", exc_info=error)
            with self._changed:
                self._changed.wait(INTERVAL_S)
