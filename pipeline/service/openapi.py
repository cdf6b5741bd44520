"""The OpenAPI 3.1 document, generated from the routes and the models of their bodies."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from flask import Response, jsonify
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from pipeline.service.answering import Answering
from pipeline.service.problems import PROBLEM_TYPE, title
from pipeline.service.routes import Route
from pipeline.service.schemas import ProblemDocument
from pipeline.service.streaming import EVENT_STREAM

DESCRIPTION = """\
Answers prompts tersely or at length. Every error is a problem document (RFC 9457) with the invalid field, if any;
requests that are not valid HTTP get 400, 413, 431 or 501 in the same form on any path. A request may set its id with
the header X-Request-ID; the response and the log contain the id."""
REQUEST_ID = {"description": "The request's id, as in the log.", "schema": {"type": "string"}, "required": True}
RETRY_AFTER = {"description": "Seconds after which to try again.", "schema": {"type": "integer"}}

EVENT = {
    "description": "One event of the stream; its data is JSON, except for OpenAI's last one, `[DONE]`.",
    "type": "object",
    "properties": {"event": {"enum": ["piece", "done", "error"]}, "data": {"type": "string"}},
    "required": ["data"],
}


def route(others: Sequence[Route], *, needs_key: bool) -> Route:
    """The route of the document, which describes the other routes and itself."""

    def openapi(answering: Answering) -> Response:
        return jsonify(document([*others, itself], needs_key=needs_key))

    itself = Route("GET", "/openapi.json", openapi, "This document", media=("application/json",), is_open=True)
    return itself


def document(routes: Sequence[Route], *, needs_key: bool) -> dict[str, Any]:
    """Generate the OpenAPI document.

    Args:
        routes: All routes.
        needs_key: Whether routes that are not open require a key.
    """
    models: set[type[BaseModel]] = {ProblemDocument}
    for known in routes:
        models |= {model for model in (known.body, known.reply, *known.others.values()) if model is not None}
    ordered = sorted(models, key=lambda model: model.__name__)
    template = "#/components/schemas/{model}"
    _, schemas = models_json_schema([(model, "validation") for model in ordered], ref_template=template)
    paths: dict[str, Any] = {}
    for known in routes:
        paths.setdefault(known.path, {})[known.method.lower()] = _operation(known, needs_key and not known.is_open)
    components: dict[str, Any] = {"schemas": schemas["$defs"]}
    if needs_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    version = importlib.metadata.version("verbosity")
    return {
        "openapi": "3.1.0",
        "info": {"title": "verbosity", "version": version, "description": DESCRIPTION},
        "paths": paths,
        "components": components,
    }


def _operation(known: Route, needs_key: bool) -> dict[str, Any]:
    content = {kind: {"schema": EVENT if kind == EVENT_STREAM else {"type": "string"}} for kind in known.media}
    if known.reply is not None:
        content["application/json"] = {"schema": _reference(known.reply)}
    if known.media == ("application/json",):
        content = {"application/json": {"schema": {"type": "object"}}}
    responses = {"200": _response("OK", content)}
    for status, model in known.others.items():
        responses[str(status)] = _response(title(status), {"application/json": {"schema": _reference(model)}})
    for status in sorted({*known.problems, *((401,) if needs_key else ())}):
        responses[str(status)] = _response(title(status), {PROBLEM_TYPE: {"schema": _reference(ProblemDocument)}})
    if "503" in responses and known.reply and not known.others:
        responses["503"]["headers"]["Retry-After"] = RETRY_AFTER
    operation: dict[str, Any] = {"operationId": known.name, "summary": known.summary, "responses": responses}
    if known.body is not None:
        body = {"application/json": {"schema": _reference(known.body)}}
        operation["requestBody"] = {"required": True, "content": body}
    if needs_key:
        operation["security"] = [{"key": []}]
    return operation


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _response(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": content, "headers": {"X-Request-ID": REQUEST_ID}}
