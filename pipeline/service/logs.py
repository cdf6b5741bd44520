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
    """What the log and the metrics are told of one request.

    Attributes:
        request_id: The client's, or our own.
        method: HTTP method.
        path: Path without the query.
        route: Path of the route that answers, ``other`` if none does.
        started: Monotonic seconds.
        style: Style of the answer.
        status: Status that was sent, or what ended a stream that had begun well.
        facts: Further members of the log line.
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
        """What puts the request's id into another line of the log, as its ``extra``."""
        return {"facts": {"request_id": self.request_id}}

    @property
    def duration_s(self) -> float:
        """Seconds since the request came in."""
        return time.monotonic() - self.started


def request_id(given: str | None) -> str:
    """The client's own id if it is 1 to 128 visible ASCII characters, otherwise a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def log_request(record: RequestRecord) -> None:
    """Write the line of a request that has been answered."""
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
    """One JSON object per line: time, level, logger, event, and what the event adds."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
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
    """Send what the service and its server log to standard error, until the end of the block."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    # Every request beyond the number of threads would be a line of waitress.queue; the metrics have the queue.
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
