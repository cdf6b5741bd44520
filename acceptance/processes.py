"""The command line and the server under test, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

ANNOUNCEMENT = "listening on "
VERBOSITY = [sys.executable, "-m", "pipeline.cli"]
"""The command line under test; sabotage replaces it with a broken one."""


@dataclass
class ServerProcess:
    """``verbosity serve`` on a free port.

    Attributes:
        arguments: Arguments after ``serve --port 0``.
        log_file: Where the server's standard error goes.
        start_limit_s: Seconds after which a server that has not announced itself is killed.
    """

    arguments: list[str]
    log_file: Path
    start_limit_s: float = 120.0
    url: str | None = None
    startup_s: float = float("nan")

    def __enter__(self) -> Self:
        started = time.perf_counter()
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*VERBOSITY, "serve", "--port", "0", *self.arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        watchdog = threading.Timer(self.start_limit_s, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:  # ends when the server announces itself, exits or is killed
            if line.startswith(ANNOUNCEMENT):
                self.url = line.removeprefix(ANNOUNCEMENT).strip()
                self.startup_s = time.perf_counter() - started
                break
        watchdog.cancel()
        return self

    def stop(self) -> int:
        """Ask the server to end and return its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
