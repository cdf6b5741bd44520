"""The WSGI application: routes, API keys, request ids, errors and logging."""

from __future__ import annotations

import logging
from functools import partial

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from pipeline.service import health, native, openai, openapi, page
from pipeline.service.answering import Answering
from pipeline.service.auth import ApiKeys
from pipeline.service.bodies import MAX_BODY_BYTES
from pipeline.service.lifecycle import Service
from pipeline.service.logs import RequestRecord, log_request, request_id
from pipeline.service.metrics import Metrics
from pipeline.service.problems import Problem, problem_response
from pipeline.service.routes import Route, current_record

logger = logging.getLogger(__name__)
ROUTES: tuple[Route, ...] = (*native.ROUTES, *openai.ROUTES, *health.ROUTES, *page.ROUTES)
"""All routes except the OpenAPI document, which is generated from them."""


def create_app(service: Service) -> Flask:
    """Create the application for a service, which may still be loading its model."""
    app = Flask("verbosity", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY_BYTES, PROVIDE_AUTOMATIC_OPTIONS=False)
    app.url_map.merge_slashes = False
    metrics = Metrics(service)
    answering = Answering(service, metrics)
    routes = (*ROUTES, openapi.route(ROUTES, needs_key=bool(service.settings.keys)))
    for route in routes:
        view = partial(route.view, answering)
        app.add_url_rule(route.path, route.name, view, methods=[route.method])
    _identify(app, {route.name: route for route in routes}, service.settings.keys)
    _observe(app, metrics)
    _explain_errors(app)
    return app


def _identify(app: Flask, routes: dict[str, Route], keys: ApiKeys) -> None:
    """Give every request its record, and check its API key."""

    @app.before_request
    def identify() -> None:
        route = routes.get(request.endpoint or "")
        g.record = RequestRecord(request_id(request.headers.get("X-Request-ID")), request.method, request.path)
        if route is not None:
            g.record.route = route.path
        if keys and (route is None or not route.is_open):
            given = request.authorization
            name = keys.name(given.token) if given and given.type == "bearer" and given.token else None
            if name is None:
                raise Problem(401, "send one of the server's keys with the header Authorization: Bearer KEY.")
            g.record.facts["key"] = name


def _observe(app: Flask, metrics: Metrics) -> None:
    """Log and count every request at the end of its response."""

    def ended(record: RequestRecord, status: int) -> None:
        record.status = record.status or status
        log_request(record)
        metrics.request(record)

    @app.after_request
    def observe(response: Response) -> Response:
        record = current_record()
        response.headers["X-Request-ID"] = record.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        if response.is_streamed:
            response.call_on_close(partial(ended, record, response.status_code))
        else:
            ended(record, response.status_code)
        return response


def _explain_errors(app: Flask) -> None:
    """Answer every error with a problem document."""

    def respond(problem: Problem) -> Response:
        for_openai = request.path.startswith("/v1/")
        return problem_response(problem, current_record().request_id, for_openai=for_openai)

    @app.errorhandler(Problem)
    def problem(error: Problem) -> Response:
        return respond(error)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        methods = ", ".join(sorted(set(getattr(error, "valid_methods", None) or ()) - {"HEAD"}))
        details = {
            404: "no such path; GET /openapi.json lists them.",
            405: f"this path supports only: {methods}.",
            413: f"the body is larger than {MAX_BODY_BYTES} bytes; shorten the prompt.",
        }
        status = error.code or 500
        response = respond(Problem(status, details.get(status, error.description or error.name)))
        if status == 405:
            response.headers["Allow"] = methods
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        logger.error("request failed", exc_info=error, extra=current_record().name())
        return respond(Problem(500, "the server failed on this request; its log has the reason."))
