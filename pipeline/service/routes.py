"""What a route is: the view that answers it and all that the OpenAPI document says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from flask import Response, g, jsonify, request
from pydantic import BaseModel

from pipeline.service.answering import Answering, Asker
from pipeline.service.logs import RequestRecord

View = Callable[[Answering], Response]
ANSWER_PROBLEMS = (400, 413, 415, 500, 503, 504)
"""Statuses of problems on a route that reads a body and answers from the engine."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    Attributes:
        method: HTTP method.
        path: Path.
        view: Answers it.
        summary: What it is for.
        reply: Model of the body of a 200; None where it is no JSON.
        body: Model of the request's body.
        media: Media types of a 200 besides the reply's JSON.
        problems: Statuses that are answered with a problem document.
        others: Models of other statuses' bodies.
        is_open: Answered without a key.
    """

    method: str
    path: str
    view: View
    summary: str
    reply: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    media: tuple[str, ...] = ()
    problems: tuple[int, ...] = (500,)
    others: Mapping[int, type[BaseModel]] = field(default_factory=lambda: MappingProxyType({}))
    is_open: bool = False

    @property
    def name(self) -> str:
        """Its name in the OpenAPI document."""
        return self.view.__name__


def current_record() -> RequestRecord:
    """The log's record of the request at hand."""
    record: RequestRecord = g.record
    return record


def current_asker() -> Asker:
    """Who asks at the moment; waitress tells whether the connection still stands."""
    return Asker(current_record(), request.environ.get("waitress.client_disconnected"))


def reply(body: BaseModel, status: int = 200) -> Response:
    """A model as JSON."""
    response = jsonify(body.model_dump(mode="json"))
    response.status_code = status
    return response
