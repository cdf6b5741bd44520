"""A server's life in a process of its own: loading, listening, draining, gone."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from pipeline.cli import main
from pipeline.errors import PipelineError
from pipeline.service.server import Listener, is_loopback
from tests.unit.pipeline.service.fakes import Served
from tests.unit.pipeline.service.test_sockets import eventually

ROOT = Path(__file__).resolve().parents[4]


class ServerProcess:
    """The fake server and its pipes."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.unit.pipeline.service.process"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.url = self.announced(r"loading the model; (http://\S+)/health")

    def announced(self, pattern: str) -> str:
        assert self.process.stdout is not None
        found = re.match(pattern, self.process.stdout.readline())
        assert found, self.log.read_text()
        return found[1]

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def health(self) -> tuple[int, str]:
        response = requests.get(f"{self.url}/health", timeout=60)
        return response.status_code, response.json()["status"]

    def ask(self) -> requests.Response:
        return requests.post(f"{self.url}/generate", json={"prompt": "Why?"}, timeout=60)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    started = ServerProcess(tmp_path / "log")
    watchdog = threading.Timer(120, started.process.kill)
    watchdog.start()
    yield started
    watchdog.cancel()
    started.process.kill()
    started.process.communicate()


def test_a_server_loads_listens_drains_and_ends_well(server: ServerProcess) -> None:
    assert server.health() == (503, "loading")
    assert server.ask().status_code == 503
    server.say("load")
    assert server.announced(r"listening on (\S+)") == server.url
    assert server.health() == (200, "ok")
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(server.ask)
        assert eventually(lambda: "verbosity_in_flight 1.0" in requests.get(f"{server.url}/metrics", timeout=60).text)
        server.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: server.health() == (503, "draining"))
        refused = server.ask()
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        assert server.process.poll() is None
        server.say("answer")
        assert under_way.result().json()["response"] == "terse: Why?"
    assert server.process.wait(60) == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    asked = [(line["path"], line["status"]) for line in lines if line["event"] == "request"]
    assert ("/generate", 200) in asked
    assert ("/generate", 503) in asked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_still_loading_ends_at_once(server: ServerProcess, number: signal.Signals) -> None:
    server.process.send_signal(number)
    assert server.process.wait(60) == 0


def test_a_server_whose_model_cannot_be_loaded_ends_with_the_reason(server: ServerProcess) -> None:
    server.say("break")
    assert server.process.wait(60) == 1
    assert "the run is not complete." in server.log.read_text()


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PipelineError, match=f"cannot listen on 127.0.0.1:{port}"):
            Listener(Served().app, "127.0.0.1", port, 1, lambda: None)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("192.0.2.1", False)],
)
def test_loopback_is_distinguished_from_other_addresses(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_host_without_an_address_is_refused() -> None:
    with pytest.raises(PipelineError, match="has no address"):
        is_loopback("no.such.host.invalid")


def test_the_world_is_let_in_only_with_a_key_or_by_an_explicit_word(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr("pipeline.service.server.run_server", lambda *load, **options: started.append(options["host"]))
    serve = ["serve", "--run", "runs/first", "--host"]
    keys = tmp_path / "keys"
    keys.write_text("a" * 64)
    assert main([*serve, "0.0.0.0"]) == 1
    assert "--allow-remote-without-key" in capsys.readouterr().err
    assert started == []
    assert main([*serve, "127.0.0.1"]) == 0
    assert main([*serve, "0.0.0.0", "--api-keys", str(keys)]) == 0
    assert main([*serve, "::", "--allow-remote-without-key"]) == 0
    assert started == ["127.0.0.1", "0.0.0.0", "::"]


@pytest.mark.parametrize(
    "options",
    [
        ["--engine", "remote"],
        ["--engine", "remote", "--remote-model", "m"],
        ["--remote-url", "http://127.0.0.1:1/v1", "--remote-model", "m"],
    ],
)
def test_another_server_needs_an_address_and_a_name(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--run", "none", *options]) == 1
    assert "give all three or none" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--max-in-flight", "0"], ["--timeout-s", "0"], ["--timeout-s", "nan"]])
def test_bounds_that_bound_nothing_are_refused(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--run", "none", *option]) == 1
    assert "must be positive" in capsys.readouterr().err
