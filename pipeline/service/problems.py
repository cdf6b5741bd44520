"""Errors as RFC 9457 problem documents."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from flask import Response

PROBLEM_TYPE = "application/problem+json"
CLIENT_GONE = 499
"""Status of a request whose client disconnected, in logs and metrics; it is never sent."""


class Problem(Exception):
    """A request that is answered with an error document."""

    def __init__(
        self,
        status: int,
        detail: str,
        field: str | None = None,
        *,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """Describe the error.

        Args:
            status: HTTP status.
            detail: What is wrong and how to fix it.
            field: The invalid field of the body.
            code: OpenAI's code of the error, for its clients.
            retry_after_s: Seconds after which to try again.
        """
        super().__init__(detail)
        self.status, self.detail, self.field = status, detail, field and field[:80]
        self.code, self.retry_after_s = code, retry_after_s

    def document(self, request_id: str | None = None) -> dict[str, Any]:
        """The members of RFC 9457, plus the invalid field and the request's id."""
        body = {
            "type": "about:blank",
            "title": title(self.status),
            "status": self.status,
            "detail": self.detail,
            "field": self.field,
            "request_id": request_id,
        }
        return {name: value for name, value in body.items() if value is not None}

    def openai_error(self) -> dict[str, Any]:
        """The error as OpenAI's clients expect it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"message": self.detail, "type": kind, "param": self.field, "code": self.code}


def title(status: int) -> str:
    """The status' reason phrase."""
    return HTTPStatus(status).phrase if status != CLIENT_GONE else "Client Closed Request"


def problem_response(problem: Problem, request_id: str | None, *, for_openai: bool = False) -> Response:
    """The problem as a response; ``for_openai`` adds OpenAI's error object."""
    body = problem.document(request_id)
    if for_openai:
        body["error"] = problem.openai_error()
    response = Response(json.dumps(body), problem.status, content_type=PROBLEM_TYPE)
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = str(problem.retry_after_s)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
