"""Listening before the model is loaded, limits of each connection, and graceful shutdown."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import waitress
from flask import Flask
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from pipeline.engines.interface import Engine
from pipeline.errors import PipelineError
from pipeline.service.app import create_app
from pipeline.service.bodies import MAX_BODY_BYTES
from pipeline.service.lifecycle import Service, ServiceInfo, Settings
from pipeline.service.problems import PROBLEM_TYPE, Problem

SPARE_THREADS = 16
"""Threads in addition to those that wait for answers: they refuse excess requests and answer health checks."""
CONNECTION_LIMIT = 512
IDLE_LIMIT_S = 60
"""How long a connection may be idle between requests."""
REQUEST_LIMIT_S = 30.0
"""How long a client may take to send one request."""
MAX_HEADER_BYTES = 32 * 1024
FLUSH_LIMIT_S = 5.0
"""How long sending the last responses may take at shutdown."""


def run_server(
    load: Callable[[], tuple[Engine, ServiceInfo]], settings: Settings, *, host: str, port: int, max_in_flight: int
) -> None:
    """Listen, load the model, answer until SIGTERM or SIGINT, and finish the answers in progress.

    Connections are accepted from the start and get 503 until ``load`` has returned. A second signal ends the process
    immediately.

    Args:
        load: Loads the engine and its model's information.
        settings: The operator's settings.
        host: Address or name to listen on.
        port: Port; 0 takes a free one.
        max_in_flight: Maximum of answers that the engine admits at once.

    Raises:
        PipelineError: The address is not available, or ``load`` failed.
    """
    service = Service(settings)
    ending = threading.Event()
    listener = Listener(create_app(service), listening_address(host), port, max_in_flight + SPARE_THREADS, ending.set)
    before = _on_signals(lambda number, frame: sys.exit(0))
    try:
        print(f"loading the model; {listener.url}/health reports when it is ready", flush=True)
        engine, info = load()
        try:
            service.ready(engine, info)
            _on_signals(_ask_once(ending))
            print(f"listening on {listener.url}", flush=True)
            ending.wait()
            service.drain()
            engine.close(settings.timeout_s)
            listener.wait_until_sent(FLUSH_LIMIT_S)
        finally:
            engine.close()
        if not listener.is_running():
            raise PipelineError("the listening thread has died; its log has the reason. Start the server again.")
    finally:
        listener.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def listening_address(host: str) -> str:
    """The numeric address of a host: the first one, IPv4 before IPv6.

    Raises:
        PipelineError: The host has no address.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise PipelineError(f"--host: {host} has no address ({error}); name one of this machine's.") from error
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])


def is_loopback(host: str) -> bool:
    """Whether a server on ``host`` is reachable from this machine only.

    Raises:
        PipelineError: As ``listening_address``.
    """
    return ipaddress.ip_address(listening_address(host).partition("%")[0]).is_loopback


def _on_signals(handler: Callable[[int, FrameType | None], object]) -> dict[int, Any]:
    """Handle SIGTERM and SIGINT; returns the previous handlers."""
    return {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}


def _ask_once(ending: threading.Event) -> Callable[[int, FrameType | None], None]:
    def ask(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        ending.set()

    return ask


class Listener:
    """waitress in its own thread; it accepts connections from the start."""

    def __init__(self, app: Flask, address: str, port: int, threads: int, when_ended: Callable[[], None]) -> None:
        """Start listening; ``when_ended`` is called when the thread ends, which only ``close`` should cause.

        Raises:
            PipelineError: The address is not available.
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            bound = socket.create_server((address, port), family=family)
        except (OSError, OverflowError) as error:
            raise PipelineError(f"cannot listen on {address}:{port} ({error}); choose another.") from error
        self._connections: dict[int, wasyncore.dispatcher] = {}
        self._server = waitress.create_server(
            app,
            map=self._connections,
            sockets=[bound],
            threads=threads,
            # Reading one request ahead is what detects a client that disconnects.
            channel_request_lookahead=1,
            connection_limit=CONNECTION_LIMIT,
            channel_timeout=IDLE_LIMIT_S,
            cleanup_interval=10,
            max_request_header_size=MAX_HEADER_BYTES,
            max_request_body_size=16 * MAX_BODY_BYTES,
            asyncore_use_poll=True,
            ident=None,
        )
        self._server.channel_class = _Channel
        host = f"[{address}]" if ":" in address else address
        self.url = f"http://{host}:{self._server.effective_port}"
        self._when_ended = when_ended
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._server.run()
        finally:
            self._when_ended()

    def is_running(self) -> bool:
        """Whether the listening thread is alive."""
        return self._thread.is_alive()

    def wait_until_sent(self, limit_s: float) -> None:
        """Wait until all responses are sent, at most ``limit_s`` seconds."""
        deadline = time.monotonic() + limit_s
        while self.is_running() and self._is_busy() and time.monotonic() < deadline:
            self._thread.join(0.02)

    def _is_busy(self) -> bool:
        channels = list(self._server.active_channels.values())
        return any(channel.requests or channel.total_outbufs_len for channel in channels)

    def close(self) -> None:
        """Close every connection and end the thread."""
        if self.is_running():
            # Runs in the listening thread, whose loop ends when no connection is left. Another call may have woken
            # that thread already, and then the trigger is closed.
            with contextlib.suppress(OSError):
                self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._connections))
            self._thread.join()
        self._server.task_dispatcher.shutdown(timeout=1)


class _ProblemTask(ErrorTask):
    """waitress's own errors as problem documents."""

    def execute(self) -> None:
        error = self.request.error
        body = json.dumps(Problem(error.code, f"{error.body}.").document()).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", PROBLEM_TYPE))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):
    """A connection with a time limit for sending each request."""

    error_task_class = _ProblemTask
    _request_began = 0.0

    def received(self, data: bytes) -> bool:
        if self.request is None:
            self._request_began = time.monotonic()
        elif time.monotonic() - self._request_began > REQUEST_LIMIT_S:
            self.will_close = True
            return False
        return bool(super().received(data))
