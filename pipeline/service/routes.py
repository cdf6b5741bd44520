"""The description of a route: its view, and everything for the OpenAPI document."""

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
"""Error statuses of routes that read a body and use the engine."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    Attributes:
        method: HTTP method.
        path: Path.
        view: Handles the request.
        summary: One line for the OpenAPI document.
        reply: Model of a 200 response's body; None if it is not JSON.
        body: Model of the request's body.
        media: Media types of a 200 response other than the reply's JSON.
        problems: Error statuses with a problem document.
        others: Models of the bodies of further statuses.
        is_open: Whether it needs no API key.
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
    """The record of the current request."""
    record: RequestRecord = g.record
    return record


def current_asker() -> Asker:
    """The client of the current request; waitress reports whether it has disconnected."""
    return Asker(current_record(), request.environ.get("waitress.client_disconnected"))


def reply(body: BaseModel, status: int = 200) -> Response:
    """A response with a model as its JSON body."""
    response = jsonify(body.model_dump(mode="json"))
    response.status_code = status
    return response
