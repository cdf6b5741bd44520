"""Answers as server-sent events."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from flask import Response

from pipeline.service.answering import Answer
from pipeline.service.logs import RequestRecord
from pipeline.service.problems import CLIENT_GONE, Problem

if TYPE_CHECKING:
    from pipeline.generation.generate import Generation

EVENT_STREAM = "text/event-stream"
logger = logging.getLogger(__name__)


class Dialect(Protocol):
    """The event format of a stream; each method yields complete events."""

    def delta(self, text: str) -> Iterable[str]:
        """A delta of the answer's text."""

    def done(self, generation: Generation) -> Iterable[str]:
        """The answer is complete."""

    def failed(self, problem: Problem) -> Iterable[str]:
        """The answer failed."""


def event(data: dict[str, Any], name: str | None = None) -> str:
    """Format a server-sent event with JSON data."""
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"


def stream(answer: Answer, record: RequestRecord, dialect: Dialect) -> Response:
    """Stream an answer as it is generated.

    The response starts with the first delta, so that an earlier refusal or timeout keeps its own status.

    Raises:
        Problem: The answer failed before its first delta.
    """
    deltas = answer.deltas()
    try:
        first = next(deltas, "")
    except BaseException:
        answer.close()
        raise

    def events() -> Iterator[str]:
        try:
            for delta in itertools.chain((first,), deltas):
                yield from dialect.delta(delta)
            yield from dialect.done(answer.result())
        except Problem as problem:
            record.status = problem.status
            yield from dialect.failed(problem)
        except GeneratorExit:
            record.status = CLIENT_GONE
            raise
        except Exception as error:
            logger.error("stream failed", exc_info=error, extra=record.name())
            record.status = 500
            yield from dialect.failed(Problem(500, "the server failed on this request; its log has the reason."))

    response = Response(events(), mimetype=EVENT_STREAM)
    response.call_on_close(answer.close)
    response.headers["X-Accel-Buffering"] = "no"
    return response
