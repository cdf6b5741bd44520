"""Several servers behind one engine: load, loss, another model."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipeline.config import Style
from pipeline.engines import remote, replicas
from pipeline.engines.interface import AnswerLostError, AnswerRequest, EngineFailedError, RequestTooLongError, Ticket
from pipeline.engines.remote import RemoteEngine
from pipeline.engines.same_model import SAME_MODEL_NATS, difference_nats
from pipeline.errors import PipelineError
from tests.unit.pipeline.engines.conftest import until


class Server(ThreadingHTTPServer):
    """Begins each answer at once and ends it when ``answers`` is set; the tests change what it does.

    Attributes:
        finish_reason: With which it ends answers.
        likelihood: Probability of the token that its model likes best; None reports ``instead`` of log-probabilities.
        answers: Set while it ends what it began.
        begun: Streams that it began.
        refuses: Status of its refusal; None takes requests.
        hangs_up: Whether it closes the connection instead of answering.
        says: What /v1/models says of the model.
        is_silent: Whether /v1/models says nothing until ``answers`` is set.
        probes: Requests to /v1/models.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int = 0, likelihood: float = 0.8) -> None:
        self.likelihood: float | None = likelihood
        self.answers = threading.Event()
        self.answers.set()
        self.begun = self.compared = 0
        self.refuses: int | None = None
        self.finish_reason = "stop"
        self.hangs_up = False
        self.instead: Any = None
        self.says: dict[str, Any] = {"id": "tiny", "max_model_len": 5000}
        self.is_killed = self.is_silent = False
        self.probes = 0
        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def kill(self) -> None:
        """Break off what was begun, and listen no more."""
        self.is_killed = True
        self.answers.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.probes += 1
        if self.server.is_silent:
            self.server.answers.wait(60)
        with suppress(ConnectionError):
            self.reply(200, {"data": [self.server.says]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.hangs_up:
            self.close_connection = True
        elif self.server.refuses:
            self.reply(self.server.refuses, {"error": {"message": "later"}})
        elif body.get("logprobs"):
            self.compare(body["top_logprobs"])
        else:
            self.stream()

    def compare(self, count: int) -> None:
        self.server.compared += 1
        best = self.server.likelihood
        if best is None:
            self.reply(200, {"choices": [{"message": {"content": "So"}, "logprobs": self.server.instead}]})
            return
        likely = [best, *[(1 - best) / (count - 1)] * (count - 1)]
        listed = [{"token": f"t{rank}", "logprob": math.log(p)} for rank, p in enumerate(likely)]
        content = [{"token": "t0", "logprob": listed[0]["logprob"], "top_logprobs": listed}] * 3
        self.reply(200, {"choices": [{"message": {"content": "t0t0t0"}, "logprobs": {"content": content}}]})

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        self.event({"choices": [{"delta": {"content": "So "}, "finish_reason": None}]})
        self.server.begun += 1
        self.server.answers.wait(60)
        if not self.server.is_killed:
            self.event({"choices": [{"delta": {"content": "it is."}, "finish_reason": self.server.finish_reason}]})
            self.chunk("data: [DONE]\n\n")
            self.chunk("")

    def event(self, event: dict[str, Any]) -> None:
        self.chunk(f"data: {json.dumps(event)}\n\n")

    def chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())
        self.wfile.flush()

    def reply(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts servers; all are ended."""
    started: list[Server] = []

    def one(**options: Any) -> Server:
        started.append(Server(**options))
        return started[-1]

    yield one
    for server in started:
        if not server.is_killed:
            server.kill()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are asked often."""
    monkeypatch.setattr(remote, "PROBE_INTERVAL_S", 0.01)


@contextmanager
def before(tokenizer: Any, *servers: Server) -> Iterator[RemoteEngine]:
    engine = RemoteEngine([server.url for server in servers], "tiny", tokenizer)
    try:
        yield engine
    finally:
        engine.close()


def ask(engine: RemoteEngine, count: int) -> list[Ticket]:
    return [engine.submit(AnswerRequest("Why?", Style.TERSE, 60)) for _ in range(count)]


def statuses(engine: RemoteEngine) -> list[str]:
    return [replica.status for replica in engine.stats().replicas]


Start = Callable[..., Server]


def test_each_request_goes_to_the_server_with_the_fewest_in_flight(start: Start, tiny_tokenizer: Any) -> None:
    first, second, _ = servers = [start() for _ in range(3)]
    first.answers.clear()
    second.answers.clear()
    with before(tiny_tokenizer, *servers) as engine:
        tickets = ask(engine, 3)
        assert tickets[2].result().text == "So it is."
        assert [replica.in_flight for replica in engine.stats().replicas] == [1, 1, 0]
        for ticket in (more for _ in range(4) for more in ask(engine, 1)):
            ticket.result()
        assert [server.begun for server in servers] == [1, 1, 5]
        first.answers.set()
        second.answers.set()
        assert [ticket.result().text for ticket in tickets] == ["So it is."] * 3


def test_one_after_the_other_they_take_turns(start: Start, tiny_tokenizer: Any) -> None:
    servers = [start() for _ in range(2)]
    with before(tiny_tokenizer, *servers) as engine:
        for _ in range(6):
            (ticket,) = ask(engine, 1)
            ticket.result()
    assert [server.begun for server in servers] == [3, 3]


def test_a_server_that_is_killed_loses_what_it_had_begun_and_nothing_else(start: Start, tiny_tokenizer: Any) -> None:
    dying, living = start(), start()
    dying.answers.clear()
    living.answers.clear()
    with before(tiny_tokenizer, dying, living) as engine:
        tickets = ask(engine, 6)
        assert until(lambda: (dying.begun, living.begun) == (3, 3))
        dying.kill()
        assert until(lambda: sum(ticket.done() for ticket in tickets) == 3)
        later = ask(engine, 4)
        living.answers.set()
        assert [ticket.result().text for ticket in later] == ["So it is."] * 4
        lost = [ticket.outcome for ticket in tickets if isinstance(ticket.outcome, Exception)]
        assert [type(error) for error in lost] == [AnswerLostError] * 3
        assert (engine.stats().finished, engine.stats().failed, engine.stats().alive) == (7, 3, True)
        assert statuses(engine) == ["unreachable", "ok"]


@pytest.mark.usefixtures("soon")
def test_a_server_that_says_nothing_while_it_answers_is_busy_and_when_idle_unreachable(
    start: Start, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    with before(tiny_tokenizer, server) as engine:
        monkeypatch.setattr(replicas, "CONNECT_TIMEOUT_S", 0.05)
        server.answers.clear()
        (ticket,) = ask(engine, 1)
        assert until(lambda: server.begun == 1)
        server.is_silent, seen = True, server.probes
        assert until(lambda: server.probes >= seen + 4)
        assert engine.stats().alive
        engine.cancel(ticket)
        assert until(lambda: not engine.stats().alive)
        server.answers.set()
        assert until(lambda: engine.stats().alive)


def test_what_a_dead_server_has_not_begun_another_one_answers(start: Start, tiny_tokenizer: Any) -> None:
    """It died idle, and nobody has noticed yet."""
    dead, living = start(), start()
    with before(tiny_tokenizer, dead, living) as engine:
        dead.kill()
        assert [ticket.result().text for ticket in ask(engine, 3)] == ["So it is."] * 3
        assert living.begun == 3
        living.kill()
        (ticket,) = ask(engine, 1)
        with pytest.raises(AnswerLostError, match="no server"):
            ticket.result()
        assert not engine.stats().alive


@pytest.mark.usefixtures("soon")
def test_a_server_that_comes_back_is_used_again(start: Start, tiny_tokenizer: Any) -> None:
    one, other = start(), start()
    with before(tiny_tokenizer, one, other) as engine:
        one.kill()
        assert until(lambda: statuses(engine) == ["unreachable", "ok"])
        again = start(port=one.server_port)
        assert until(lambda: statuses(engine) == ["ok", "ok"])
        for _ in range(2):
            ask(engine, 1)[0].result()
        assert (again.begun, other.begun) == (1, 1)


def test_a_server_that_is_down_at_the_start_is_named_and_the_others_serve(start: Start, tiny_tokenizer: Any) -> None:
    down, living = start(), start()
    down.kill()
    with before(tiny_tokenizer, down, living) as engine:
        assert ask(engine, 1)[0].result().text
        (state, _) = engine.stats().replicas
        assert (state.url, state.status) == (down.url, "unreachable")
        assert "no OpenAI-compatible server answers" in (state.reason or "")


def test_a_server_of_another_model_is_named_and_gets_no_request(start: Start, tiny_tokenizer: Any) -> None:
    first, other = start(), start(likelihood=0.6)
    with before(tiny_tokenizer, first, other) as engine:
        (_, state) = engine.stats().replicas
        assert (state.url, state.status) == (other.url, "different")
        assert state.reason is not None
        assert state.reason.startswith(f"{other.url} answers as another model than {first.url}")
        for ticket in ask(engine, 3):
            ticket.result()
        assert (first.begun, other.begun) == (3, 0)


@pytest.mark.usefixtures("soon")
def test_a_server_that_comes_back_with_another_model_is_noticed(start: Start, tiny_tokenizer: Any) -> None:
    """Even the one that the others were compared with."""
    first, second = start(), start()
    with before(tiny_tokenizer, first, second) as engine:
        first.kill()
        assert until(lambda: statuses(engine) == ["unreachable", "ok"])
        start(port=first.server_port, likelihood=0.6)
        assert until(lambda: statuses(engine) == ["different", "ok"])


@pytest.mark.parametrize("says", [{"root": "/adapters/old"}, {}], ids=["and says so", "and says nothing"])
@pytest.mark.usefixtures("soon")
def test_another_model_loaded_without_a_pause_is_noticed(
    says: dict[str, str], start: Start, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not says:
        monkeypatch.setattr(replicas, "COMPARE_INTERVAL_S", 0.05)
    first, second = start(), start()
    with before(tiny_tokenizer, first, second) as engine:
        second.likelihood = 0.6
        second.says |= says
        assert until(lambda: statuses(engine) == ["ok", "different"])
        second.likelihood = 0.8
        second.says |= {"root": "/adapters/new"}
        assert until(lambda: statuses(engine) == ["ok", "ok"])


def test_rounding_is_no_other_model(start: Start, tiny_tokenizer: Any) -> None:
    with before(tiny_tokenizer, start(), start(likelihood=0.805)) as engine:
        assert statuses(engine) == ["ok", "ok"]


@pytest.mark.parametrize("reported", [None, {"content": []}], ids=["nothing", "no position"])
def test_what_cannot_be_compared_is_refused_and_one_address_needs_no_comparison(
    reported: Any, start: Start, tiny_tokenizer: Any
) -> None:
    one, other = start(), start()
    one.likelihood, one.instead = None, reported
    other.likelihood = None
    with pytest.raises(PipelineError, match=f"{one.url}: reports no log-probabilities.*name one address only"):
        RemoteEngine([one.url, other.url], "tiny", tiny_tokenizer)
    compared = one.compared
    with before(tiny_tokenizer, one) as engine:
        assert ask(engine, 1)[0].result().text
        assert engine.stats().replicas == ()
    assert one.compared == compared


def test_a_server_that_hangs_up_while_it_is_compared_is_unreachable(start: Start, tiny_tokenizer: Any) -> None:
    one, other = start(), start()
    other.hangs_up = True
    with before(tiny_tokenizer, one, other) as engine:
        (_, state) = engine.stats().replicas
        assert (state.status, state.reason) == ("unreachable", f"{other.url}: does not answer (RemoteProtocolError).")


def test_an_address_twice_is_refused(start: Start, tiny_tokenizer: Any) -> None:
    url = start().url
    with pytest.raises(PipelineError, match="stands twice"):
        RemoteEngine([url, url], "tiny", tiny_tokenizer)


@pytest.mark.parametrize(
    ("does", "value", "is_lost"),
    [
        *(("refuses", status, True) for status in (429, 502, 503, 504)),
        ("refuses", 400, False),
        ("finish_reason", "abort", True),
        ("finish_reason", "content_filter", False),
    ],
)
def test_a_server_that_takes_nothing_now_or_ends_is_no_failure_of_the_request(
    does: str, value: object, is_lost: bool, start: Start, tiny_tokenizer: Any
) -> None:
    server = start()
    setattr(server, does, value)
    with before(tiny_tokenizer, server) as engine:
        (ticket,) = ask(engine, 1)
        with pytest.raises(EngineFailedError) as failure:
            ticket.result()
        assert isinstance(failure.value, AnswerLostError) is is_lost
        assert engine.stats().alive


def test_credentials_of_an_address_are_not_shown(start: Start, tiny_tokenizer: Any) -> None:
    one, other = start(), start(likelihood=0.6)
    urls = [server.url.replace("//", "//someone:secret@") for server in (one, other)]
    engine = RemoteEngine(urls, "tiny", tiny_tokenizer)
    assert [replica.url for replica in engine.stats().replicas] == [one.url, other.url]
    assert "secret" not in str(engine.stats())
    engine.close()


def test_the_smallest_context_counts(start: Start, tiny_tokenizer: Any) -> None:
    small, large = start(), start()
    small.says |= {"max_model_len": 20}
    with before(tiny_tokenizer, large, small) as engine, pytest.raises(RequestTooLongError, match="20 tokens"):
        ask(engine, 1)


A, B = {"a": math.log(0.9), "b": math.log(0.1)}, {"a": math.log(0.1), "b": math.log(0.9)}


def test_positions_count_until_the_answers_part() -> None:
    same, parted = [("a", A)] * 3, [("a", A), ("b", B), ("a", B)]
    assert difference_nats([same], [same]) == 0
    assert difference_nats([same], [parted]) == pytest.approx(math.log(9) / 2)


def test_a_token_that_is_not_listed_counts_as_the_least_likely_that_is() -> None:
    found = [[("b", {"b": math.log(0.1)})]]
    assert difference_nats([[("a", {"a": math.log(0.9)})]], found) == pytest.approx(math.log(9))


@pytest.mark.parametrize("found", [[[]], [[("a", {})]], [[("a", {"a": math.nan})]], [[("a", {"a": -math.inf})]]])
def test_what_says_nothing_is_never_the_same(found: Any) -> None:
    assert not difference_nats([[("a", A)]], found) <= SAME_MODEL_NATS
    assert not difference_nats(found, [[("a", A)]]) <= SAME_MODEL_NATS
