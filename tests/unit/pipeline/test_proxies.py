from __future__ import annotations

import os

import pytest

from pipeline.proxies import is_loopback_host, is_loopback_url, proxy_hint, proxy_variable

ELSEWHERE = "http://gpu.example:8000/v1"


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.0.1", "::1", "[::1]", "::ffff:127.0.0.1"]
)
def test_this_machine_is_known_by_name_and_address(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize("host", ["", "localhost.example", "mylocalhost", "128.0.0.1", "::", "fe80::1%eth0", "0.0.0.0"])
def test_another_machine_is_not_this_one(host: str) -> None:
    assert not is_loopback_host(host)


@pytest.mark.parametrize(
    ("variables", "url", "named"),
    [
        ({}, ELSEWHERE, None),
        ({"http_proxy": "http://proxy:1"}, ELSEWHERE, "http_proxy"),
        ({"HTTP_PROXY": "http://proxy:1"}, ELSEWHERE, "HTTP_PROXY"),
        ({"all_proxy": "http://proxy:1"}, ELSEWHERE, "all_proxy"),
        ({"https_proxy": "http://proxy:1"}, ELSEWHERE, None),
        ({"http_proxy": "http://proxy:1", "no_proxy": ".example"}, ELSEWHERE, None),
        ({"http_proxy": "http://proxy:1", "NO_PROXY": "gpu.example:8000"}, ELSEWHERE, None),
        ({"http_proxy": "http://proxy:1"}, "http://[::1]:8000/v1", None),
        ({"http_proxy": "http://proxy:1"}, "http://[broken", None),
    ],
)
def test_the_variable_of_a_proxy_is_named(
    variables: dict[str, str], url: str, named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_variable(url) == named
    hint = proxy_hint(url)
    assert hint == "" if named is None else hint.startswith(f" The request went through the proxy of {named}; ")
    assert "gpu.example to no_proxy." in hint or named is None


@pytest.mark.parametrize(
    ("url", "local"), [("http://[::1]:8000/v1", True), (ELSEWHERE, False), ("http://[::1", False), ("nonsense", False)]
)
def test_a_url_that_is_none_leads_nowhere(url: str, local: bool) -> None:
    assert is_loopback_url(url) is local
