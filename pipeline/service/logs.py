"""Structured logs: one JSON object per line, one line per request."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import Style

logger = logging.getLogger("pipeline.service")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(slots=True)
class RequestRecord:
    """One request, as recorded for the log and the metrics.

    Attributes:
        request_id: The client's id, or a generated one.
        method: HTTP method.
        path: Path without the query.
        route: Path of the matching route; ``other`` if there is none.
        started: Monotonic time of arrival in seconds.
        style: Style of the answer.
        status: HTTP status; for a stream that failed after its start, the status of the failure.
        facts: Further fields of the log line.
    """

    request_id: str
    method: str
    path: str
    route: str = "other"
    started: float = field(default_factory=time.monotonic)
    style: Style | None = None
    status: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def name(self) -> dict[str, dict[str, str]]:
        """The ``extra`` argument that adds the request's id to another log line."""
        return {"facts": {"request_id": self.request_id}}

    @property
    def duration_s(self) -> float:
        """Seconds since the request arrived."""
        return time.monotonic() - self.started


def request_id(given: str | None) -> str:
    """The client's own id if it is 1 to 128 visible ASCII characters, otherwise a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def log_request(record: RequestRecord) -> None:
    """Log one line for an answered request."""
    facts = {
        "request_id": record.request_id,
        "method": record.method[:20],
        "path": record.path[:200],
        "status": record.status,
        "duration_s": round(record.duration_s, 4),
        "style": record.style,
        **record.facts,
    }
    logger.info("request", extra={"facts": {name: value for name, value in facts.items() if value is not None}})


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, event and the event's facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Send the logs of the service and of waitress to standard error inside the block."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    # waitress.queue logs a warning for every request beyond the number of threads; the metrics show the queue.
    levels = {"pipeline": logging.INFO, "waitress": logging.WARNING, "waitress.queue": logging.ERROR}
    loggers = {name: logging.getLogger(name) for name in levels}
    before = {name: (log.handlers, log.propagate, log.level) for name, log in loggers.items()}
    for name, log in loggers.items():
        log.handlers, log.propagate = [handler], False
        log.setLevel(levels[name])
    try:
        yield
    finally:
        for name, log in loggers.items():
            log.handlers, log.propagate, level = before[name]
            log.setLevel(level)
