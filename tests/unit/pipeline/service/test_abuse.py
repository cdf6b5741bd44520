"""Generated requests, well formed and not: documented answers only, no hang, no traceback, and the server stays up.

``make abuse`` sends thousands; the number of requests by status is printed at the end.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tabulate import tabulate

from harness.files import write_text_atomically
from harness.provenance import collect
from pipeline.config import Style
from pipeline.engines.interface import (
    AnswerRequest,
    AnswerTimeoutError,
    EngineBusyError,
    EngineClosedError,
    RequestTooLongError,
    Ticket,
)
from pipeline.service.bodies import GZIP_MAGIC
from tests.unit.pipeline.service.fakes import FakeEngine, Served, listening

ROOT = Path(__file__).resolve().parents[4]
TIMEOUT_S = 60
TALLY: collections.Counter[tuple[str, int]] = collections.Counter()
"""Requests of this module by who made them and the status they got."""
CONFIG = SchemathesisConfig.from_dict(
    {
        "generation": {"mode": "all"},
        "checks": {
            # Tokens of a prompt have a bound that no schema can tell, characters one that is answered with 413, too.
            "positive_data_acceptance": {"expected-statuses": ["2xx", 404, 413]},
            "negative_data_rejection": {"expected-statuses": [400, 401, 404, 405, 413, 415]},
        },
    }
)


class TroubledEngine(FakeEngine):
    """Refuses, fails and comes late in turn."""

    def __init__(self) -> None:
        super().__init__()
        troubles = (None, EngineBusyError(), EngineClosedError(), RequestTooLongError(9), MemoryError(), "late")
        self._troubles = itertools.cycle(troubles)

    def submit(self, request: AnswerRequest) -> Ticket:
        trouble = next(self._troubles)
        self.outcome = trouble if isinstance(trouble, MemoryError) else None
        self.refusal = trouble if isinstance(trouble, Exception) and self.outcome is None else None
        ticket = super().submit(request)
        if trouble == "late":
            ticket.outcome = AnswerTimeoutError()
        return ticket


HEALTHY, TROUBLED = Served(), Served(engine=TroubledEngine())
healthy_schema = schemathesis.openapi.from_wsgi("/openapi.json", HEALTHY.app, config=CONFIG)
troubled_schema = schemathesis.openapi.from_wsgi("/openapi.json", TROUBLED.app, config=CONFIG)


@pytest.fixture(scope="module", autouse=True)
def tally() -> Iterator[None]:
    yield
    rows = [{"by": who, "status": status, "requests": count} for (who, status), count in sorted(TALLY.items())]
    print(f"\n{TALLY.total()} requests\n{tabulate(rows, headers='keys', tablefmt='github')}")
    if report := os.environ.get("ABUSE_REPORT"):
        document = {"command": "make abuse", "provenance": collect(ROOT), "requests": TALLY.total(), "rows": rows}
        write_text_atomically(Path(report), json.dumps(document, indent=1) + "\n")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(HEALTHY.app) as address:
        yield address
        assert requests.get(f"{address}/livez", timeout=TIMEOUT_S).status_code == 200


def count(who: str, status: int, text: str) -> None:
    TALLY[who, status] += 1
    assert "Traceback" not in text


@healthy_schema.parametrize()
def test_every_page_does_what_the_document_says(case: schemathesis.Case[Any]) -> None:
    response = case.call_and_validate()
    count("in process", response.status_code, response.text)


@healthy_schema.parametrize()
def test_every_page_does_so_over_a_socket(case: schemathesis.Case[Any], url: str) -> None:
    response = case.call_and_validate(base_url=url, timeout=TIMEOUT_S)
    count("socket", response.status_code, response.text)


@pytest.mark.slow
@troubled_schema.include(path_regex="generate|completions").parametrize()
def test_an_engine_in_trouble_gives_documented_errors_only(case: schemathesis.Case[Any]) -> None:
    response = case.call_and_validate(excluded_checks=[not_a_server_error, positive_data_acceptance])
    count("troubled", response.status_code, response.text)


ANY_TEXT = st.text(st.characters(), max_size=200) | st.text(st.characters(categories=["Cs", "Cc", "Zs"]), max_size=20)
"""Also halves of surrogate pairs, control characters and blanks."""


@given(prompt=ANY_TEXT, style=st.sampled_from([None, *Style]))
def test_any_text_is_answered_or_refused_with_the_reason(prompt: str, style: Style | None) -> None:
    response = HEALTHY.client.post(
        "/generate", data=json.dumps({"prompt": prompt, "style": style}), content_type="application/json"
    )
    count("prompts", response.status_code, response.get_data(as_text=True))
    if response.status_code == 200:
        body = response.get_json()
        # Two halves in a row are one character once they are JSON.
        assert body["response"] == f"{body['style']}: {json.loads(json.dumps(prompt))}".strip()
    else:
        assert response.status_code in (400, 413)
        assert json.loads(response.data)["field"] == "prompt"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=10,
)
NAMES = st.sampled_from(["prompt", "style", "stream", "model", "messages", "max_tokens", "n"])
PATHS = st.sampled_from(["/generate", "/v1/chat/completions", "/v1/completions"])


@given(path=PATHS, body=st.dictionaries(NAMES, JSON_VALUES, max_size=5) | JSON_VALUES)
def test_any_json_is_answered_or_refused(path: str, body: Any) -> None:
    response = HEALTHY.client.post(path, data=json.dumps(body), content_type="application/json")
    count("json", response.status_code, response.get_data(as_text=True))
    assert response.status_code in (200, 400, 404, 413)


@given(path=PATHS, body=st.binary(max_size=300))
def test_any_bytes_are_refused(path: str, body: bytes) -> None:
    response = HEALTHY.client.post(path, data=body, content_type="application/json")
    count("bytes", response.status_code, response.get_data(as_text=True))
    assert response.status_code == (415 if body.startswith(GZIP_MAGIC) else 400)


@given(head=st.binary(max_size=200), tail=st.sampled_from([b"", b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n{}"]))
def test_any_bytes_on_a_connection_leave_the_server_up(url: str, head: bytes, tail: bytes) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=TIMEOUT_S) as connection:
        connection.sendall(b"POST /generate HTTP/1.1\r\n" + head + tail)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while more := connection.recv(4096):
            received += more
    status = int(received.split()[1]) if received else 0
    count("raw", status, received.decode("latin-1"))
    assert status in (0, 400, 404, 405, 413, 415, 431, 501)
