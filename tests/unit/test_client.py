"""The client that judges a server, where the environment names a proxy."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest
import requests

from acceptance.client import Client
from pipeline.config import Style


class _Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Healthy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(params=["http_proxy", "ALL_PROXY"])
def proxy_variable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A proxy that nobody listens at."""
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(request.param, "http://127.0.0.1:9")
    return str(request.param)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_healthy_local_server_is_reached_without_the_proxy(host: str, port: int, proxy_variable: str) -> None:
    assert Client(f"http://{host}:{port}").health().status == 200


def test_an_error_of_the_proxy_names_its_variable(proxy_variable: str) -> None:
    with pytest.raises(requests.exceptions.ProxyError, match=rf"proxy of {proxy_variable}; .* gpu\.example"):
        Client("http://gpu.example:8000").health()


def test_an_error_of_the_proxy_is_no_reply_of_the_server(proxy_variable: str) -> None:
    client = Client("http://gpu.example:8000")
    with pytest.raises(requests.exceptions.ProxyError, match=f"proxy of {proxy_variable}"):
        client.ask("What is a sonnet?", Style.TERSE)
