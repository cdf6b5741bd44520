"""The web page for trying a prompt: HTML, style and script, without external resources."""

from __future__ import annotations

from flask import Response

from pipeline.files import ASSETS
from pipeline.service.answering import Answering
from pipeline.service.routes import Route

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def index(answering: Answering) -> Response:
    """The web page."""
    response = _file("index.html", "text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def page_script(answering: Answering) -> Response:
    """The page's script."""
    return _file("page.js", "text/javascript; charset=utf-8")


def page_style(answering: Answering) -> Response:
    """The page's style sheet."""
    return _file("page.css", "text/css; charset=utf-8")


def _file(name: str, content_type: str) -> Response:
    return Response((ASSETS / "page" / name).read_bytes(), content_type=content_type)


ROUTES = (
    Route("GET", "/", index, "Try a prompt in both styles", media=("text/html",), is_open=True),
    Route("GET", "/page.js", page_script, "The page's script", media=("text/javascript",), is_open=True),
    Route("GET", "/page.css", page_style, "The page's style sheet", media=("text/css",), is_open=True),
)
