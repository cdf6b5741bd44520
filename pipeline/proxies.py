"""Proxy variables of the environment: local traffic never goes through a proxy, and an error names its variable."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

LOOPBACK_HOSTS = ("localhost", "127.0.0.1")
"""Hosts that belong in ``no_proxy``."""
_KINDS = ("http", "https", "all")


def is_loopback_host(host: str) -> bool:
    """Whether a host is this machine by its name or address alone; nothing is looked up.

    Args:
        host: A name or an address, IPv6 with or without brackets.
    """
    name = host.lower().strip("[]").rstrip(".")
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_loopback_url(url: str) -> bool:
    """Whether a URL leads to this machine; no proxy may be used for it."""
    try:
        return is_loopback_host(urlsplit(url).hostname or "")
    except ValueError:  # no URL at all; whoever requests it says so
        return False


def proxy_variable(url: str) -> str | None:
    """The environment variable whose proxy serves a URL; None if the connection is direct."""
    proxies = getproxies_environment()
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    kind = next((kind for kind in (parts.scheme, "all") if kind in proxies), None)
    if kind is None or is_loopback_url(url) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return _spelled(kind)


def proxy_hint(url: str) -> str:
    """A sentence about the proxy of a URL to append to an error; empty if the connection is direct."""
    variable = proxy_variable(url)
    if variable is None:
        return ""
    host = urlsplit(url).hostname
    return f" The request went through the proxy of {variable}; correct it or add {host} to no_proxy."


def proxies_of_local_traffic() -> tuple[list[str], list[str]]:
    """The proxy variables that are set, and the ``LOOPBACK_HOSTS`` that ``no_proxy`` lacks."""
    names = [_spelled(kind) for kind in _KINDS if kind in getproxies_environment()]
    return names, [host for host in LOOPBACK_HOSTS if not proxy_bypass(host)]


def _spelled(kind: str) -> str:
    """The variable as the user spelled it; the lower-case one takes precedence."""
    name = f"{kind}_proxy"
    return name if os.environ.get(name) else name.upper()
