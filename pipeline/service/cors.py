"""Cross-origin requests: which other sites' pages may use the server; none by default."""

from __future__ import annotations

import re
from collections.abc import Iterable

from flask import Flask, Response, request
from werkzeug.exceptions import MethodNotAllowed

from pipeline.errors import PipelineError

ANY = "*"
EXPOSED_HEADERS = "X-Request-ID, Retry-After"
"""Headers that a page of another origin may read."""
PREFLIGHT_AGE_S = 600
"""How long a browser may remember a preflight's response."""
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s@]+", re.IGNORECASE)
_HEADERS = re.compile(r"[\w\-, ]*", re.ASCII)


class Origins:
    """The origins whose pages may read responses."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        """Take origins as browsers send them, such as ``https://example.org:8443``, or ``*`` for any.

        Raises:
            PipelineError: One is not an origin.
        """
        self._allowed = frozenset(one if one == ANY else one.lower() for one in allowed)
        for one in self._allowed - {ANY}:
            if not _ORIGIN.fullmatch(one):
                raise PipelineError(f"--allow-origin {one}: not an origin; write scheme://host[:port] without a path.")

    def __bool__(self) -> bool:
        """Whether any other origin is allowed."""
        return bool(self._allowed)

    def allows(self, origin: str) -> bool:
        """Whether a page of this origin may read responses."""
        return ANY in self._allowed or origin.lower() in self._allowed


def share(app: Flask, origins: Origins) -> None:
    """Answer the preflights of allowed origins, and let their pages read the responses."""

    def allowed() -> str | None:
        origin = request.headers.get("Origin")
        return origin if origin and origins.allows(origin) else None

    @app.before_request
    def preflight() -> Response | None:
        # Before the check of the API key, which a browser leaves out here.
        refusal = request.routing_exception
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not (is_preflight and allowed() and isinstance(refusal, MethodNotAllowed)):
            return None
        response = Response(status=204)
        response.headers["Access-Control-Allow-Methods"] = ", ".join(sorted(refusal.valid_methods or ()))
        asked = request.headers.get("Access-Control-Request-Headers", "")
        if _HEADERS.fullmatch(asked):
            # Whatever the page asks for: OpenAI's client sends a dozen headers of its own.
            response.headers["Access-Control-Allow-Headers"] = asked
        response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_AGE_S)
        return response

    @app.after_request
    def permit(response: Response) -> Response:
        response.vary.add("Origin")
        if origin := allowed():
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
        return response
