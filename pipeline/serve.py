"""The HTTP service: ``POST /generate`` and ``GET /health``; errors are RFC 9457 problem documents."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import waitress
from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from pipeline.config import Style
from pipeline.data.style import detect_style
from pipeline.engines.interface import (
    AnswerCancelledError,
    AnswerRequest,
    AnswerTimeoutError,
    Engine,
    EngineBusyError,
    EngineClosedError,
    RequestTooLongError,
)

MAX_BODY_BYTES = 64 * 1024
MAX_PROMPT_CHARACTERS = 8_000
REQUEST_TIMEOUT_S = 28.0
"""Below the documented 30 s, so that the server answers before its criterion is broken."""


class Problem(Exception):
    """A request that is answered with an error document."""

    def __init__(self, status: int, detail: str, field: str | None = None) -> None:
        """``detail`` says what is wrong and what to do; ``field`` names the member of the body at fault."""
        super().__init__(detail)
        self.status, self.detail, self.field = status, detail, field


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """What ``/health`` says of the service.

    Attributes:
        model: Name of the target.
        adapter: SHA-256 of the adapter's weights.
        gpu_memory_gib: Reads the GPU memory in use; 0.0 on a CPU.
        count_tokens: Token count of a prompt.
        max_prompt_tokens: Longest prompt that is answered.
    """

    model: str
    adapter: str
    gpu_memory_gib: Callable[[], float]
    count_tokens: Callable[[str], int]
    max_prompt_tokens: int


def create_app(engine: Engine, info: ServiceInfo, *, timeout_s: float = REQUEST_TIMEOUT_S) -> Flask:
    """Build the WSGI application around an engine."""
    app = Flask("verbosity")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="ok", model=info.model, adapter=info.adapter, gpu_memory=round(info.gpu_memory_gib(), 3))

    @app.post("/generate")
    def generate() -> Response:
        prompt, style = _parse(_read_json(), info)
        try:
            generation = engine.submit(AnswerRequest(prompt, style, timeout_s)).result()
        except EngineBusyError:
            raise Problem(503, "too many requests are waiting; try again in a few seconds.") from None
        except (EngineClosedError, AnswerCancelledError):
            raise Problem(503, "the server is about to end; try again in a few seconds.") from None
        except RequestTooLongError as error:
            raise Problem(413, f"prompt is too long: {error}; shorten it.", "prompt") from None
        except AnswerTimeoutError:
            raise Problem(504, f"no answer within {timeout_s:g} s; try again when the server is less busy.") from None
        return jsonify(
            response=generation.text,
            style=style.value,
            tokens=generation.token_count,
            latency=generation.latency_s,
        )

    @app.errorhandler(Problem)
    def problem(error: Problem) -> Response:
        return _problem_response(error.status, error.detail, error.field)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        methods = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
        details = {
            404: "no such page; use POST /generate or GET /health.",
            405: f"this page answers only: {methods}.",
            413: f"the body is larger than {MAX_BODY_BYTES} bytes; shorten the prompt.",
        }
        status = error.code or 500
        response = _problem_response(status, details.get(status, error.description or error.name))
        if status == 405:
            response.headers["Allow"] = methods
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        app.logger.exception("request failed", exc_info=error)
        return _problem_response(500, "the server failed on this request; its log has the reason.")

    return app


def _problem_response(status: int, detail: str, field: str | None = None) -> Response:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
    }
    if field is not None:
        body["field"] = field
    response = Response(json.dumps(body), status, content_type="application/problem+json")
    if status == 503:
        response.headers["Retry-After"] = "5"
    return response


_TITLES = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    413: "Too long",
    415: "Not JSON",
    500: "Server error",
    503: "Busy",
    504: "Too slow",
}


def _read_json() -> Any:
    if request.mimetype != "application/json":
        raise Problem(415, "send JSON with the header Content-Type: application/json.")
    try:
        return json.loads(request.get_data())
    except (ValueError, RecursionError):
        raise Problem(400, 'the body is not valid JSON; send {"prompt": "...", "style": "terse"}.') from None


def _parse(body: Any, info: ServiceInfo) -> tuple[str, Style]:
    if not isinstance(body, dict):
        raise Problem(400, 'the body is not a JSON object; send {"prompt": "...", "style": "terse"}.')
    for name in body.keys() - {"prompt", "style"}:
        raise Problem(400, f"unknown field {name[:80]!r}; only prompt and style are read.", name[:80])
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise Problem(400, "prompt must be a non-empty string.", "prompt")
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise Problem(400, "prompt holds half of a surrogate pair; send valid Unicode.", "prompt")
    if any(style.token in prompt for style in Style):
        raise Problem(400, "prompt must not hold a style token; name the style in the field style.", "prompt")
    if len(prompt) > MAX_PROMPT_CHARACTERS or info.count_tokens(prompt) > info.max_prompt_tokens:
        limit = f"{MAX_PROMPT_CHARACTERS} characters or {info.max_prompt_tokens} tokens"
        raise Problem(413, f"prompt is longer than {limit}; shorten it.", "prompt")
    style = body.get("style", detect_style(prompt).value)
    if not isinstance(style, str) or style not in set(Style):
        raise Problem(400, f"style must be one of: {', '.join(Style)}.", "style")
    return prompt, Style(style)


def run_server(app: Flask, engine: Engine, *, host: str, port: int) -> None:
    """Listen until SIGTERM or SIGINT; port 0 takes a free one. The address is printed once it answers."""
    server = waitress.create_server(
        app,
        host=host,
        port=port,
        threads=16,
        max_request_body_size=256 * MAX_BODY_BYTES,
        channel_timeout=60,
        ident=None,
    )
    address = f"[{host}]" if ":" in host else host
    # Before the announcement: who reads it may stop the server at once.
    signal.signal(signal.SIGTERM, _stop)
    try:
        print(f"listening on http://{address}:{server.effective_port}", flush=True)
        server.run()
    finally:
        server.close()
        engine.close()


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(0)
