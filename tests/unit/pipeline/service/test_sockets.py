"""What only a real connection shows: clients that leave, dawdle, flood or talk nonsense."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
import requests

from pipeline.service import server
from tests.unit.pipeline.service.fakes import FakeEngine, Served, listening


@pytest.fixture
def served() -> Served:
    return Served(engine=FakeEngine(max_in_flight=4))


@pytest.fixture
def url(served: Served) -> Iterator[str]:
    with listening(served.app) as address:
        yield address


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port or 0), timeout=20)


def raw(body: bytes, *headers: str) -> bytes:
    head = ["POST /generate HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, *headers, "", ""]).encode() + body


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true before a limit that only a defect reaches."""
    deadline = time.monotonic() + 20
    pause = threading.Event()
    while not condition() and time.monotonic() < deadline:
        pause.wait(0.01)
    return condition()


ASK = raw(b'{"prompt": "Why?"}')
ASK_STREAM = raw(b'{"prompt": "Why?", "stream": true}')


@pytest.mark.parametrize("question", [ASK, ASK_STREAM])
def test_a_client_that_leaves_frees_its_place(served: Served, url: str, question: bytes) -> None:
    served.engine.hold = True
    connection = connect(url)
    connection.sendall(question)
    assert eventually(lambda: served.engine.stats().in_flight == 1)
    connection.close()
    assert eventually(lambda: served.engine.stats().in_flight == 0)
    assert served.engine.stats().cancelled == 1


def test_a_client_that_leaves_in_the_middle_of_a_stream_frees_its_place(served: Served, url: str) -> None:
    served.engine.hold = True
    connection = connect(url)
    connection.sendall(ASK_STREAM)
    assert eventually(lambda: served.engine.stats().in_flight == 1)
    (ticket,) = served.engine.admission.tickets()
    ticket.progress("Because")
    assert b"200 OK" in connection.recv(100)
    connection.close()
    assert eventually(lambda: served.engine.stats().in_flight == 0)


def test_a_delta_is_sent_before_the_next_one_exists(served: Served, url: str) -> None:
    served.engine.hold = True
    with requests.Session() as session:
        threading.Thread(target=lambda: eventually(lambda: _begin(served, "Because")), daemon=True).start()
        response = session.post(f"{url}/generate", json={"prompt": "Why?", "stream": True}, stream=True, timeout=20)
        lines = response.iter_lines(chunk_size=1)
        assert [next(lines), next(lines)] == [b"event: piece", b'data: {"text": "Because"}']
        assert served.engine.stats().in_flight == 1
        for ticket in served.engine.admission.tickets():
            ticket.cancel()
        assert b"event: error" in list(lines)


def _begin(served: Served, piece: str) -> bool:
    tickets = served.engine.admission.tickets()
    for ticket in tickets:
        ticket.progress(piece)
    return bool(tickets)


def test_overload_is_refused_while_health_answers(served: Served, url: str) -> None:
    served.engine.hold = True
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connect(url)).sendall(ASK)
        assert eventually(lambda: served.engine.stats().in_flight == 4)
        refused = [requests.post(f"{url}/generate", json={"prompt": "Why?"}, timeout=20) for _ in range(30)]
        assert {response.status_code for response in refused} == {503}
        assert all("Retry-After" in response.headers for response in refused)
        assert requests.get(f"{url}/health", timeout=20).status_code == 200


def test_two_hundred_idle_connections_leave_room(url: str) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(url))
        assert requests.post(f"{url}/generate", json={"prompt": "Why?"}, timeout=20).status_code == 200


def test_half_a_request_holds_up_nobody(url: str) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(url)).sendall(ASK[:-5])
        assert requests.post(f"{url}/generate", json={"prompt": "Why?"}, timeout=20).status_code == 200


def test_a_client_that_sends_ever_so_slowly_is_put_out(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_LIMIT_S", 0.0)
    with connect(url) as connection:
        connection.sendall(ASK[:10])

        def is_out() -> bool:
            try:
                connection.sendall(b"x")
            except OSError:
                return True
            return False

        assert eventually(is_out)
    assert requests.get(f"{url}/livez", timeout=20).status_code == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HELLO\r\n\r\n", 400),
        (raw(b"", *(f"X-{number}: {'y' * 100}" for number in range(1_000))), 431),
        (raw(b"", "Transfer-Encoding: gzip"), 501),
        (b"POST /generate HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST /generate HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\x00b\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_gets_a_problem_document(url: str, sent: bytes, status: int) -> None:
    with connect(url) as connection:
        with contextlib.suppress(OSError):  # the answer may come before everything is sent
            connection.sendall(sent)
        received = b""
        with contextlib.suppress(OSError):
            while more := connection.recv(4096):
                received += more
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith((f"HTTP/1.1 {status} ".encode(), f"HTTP/1.0 {status} ".encode()))
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == status
    assert requests.get(f"{url}/livez", timeout=20).status_code == 200


def test_an_oversized_body_is_refused_with_the_reason(url: str) -> None:
    response = requests.post(f"{url}/generate", json={"prompt": "x" * 200_000}, timeout=20)
    assert (response.status_code, response.json()["status"]) == (413, 413)


def test_answers_are_not_mixed_up(url: str) -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        reply = requests.post(f"{url}/generate", json={"prompt": f"nonce {number}"}, timeout=20)
        answers[number] = reply.json()["response"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"terse: nonce {number}" for number in range(4)}
