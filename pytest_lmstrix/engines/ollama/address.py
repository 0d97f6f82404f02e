"""Addresses of Ollama servers, as people and the variable `OLLAMA_HOST` write them. Pure."""

from __future__ import annotations

import ipaddress
from contextlib import suppress

from pytest_lmstrix.system.addresses import OLLAMA_PORT

_LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that a server listens at -> where a client reaches it."""


def ollama_url(given: str) -> str:
    """Return the base URL in an `OLLAMA_HOST`, read as Ollama itself reads it.

    Source: `envconfig.Host` of https://github.com/ollama/ollama. A port that is not valid is
    the default one.
    """
    scheme, separator, rest = given.strip().strip("\"'").strip().partition("://")
    if not separator:
        scheme, rest = "http", scheme
    scheme = scheme.lower()
    default = {"http": 80, "https": 443}.get(scheme, OLLAMA_PORT) if separator else OLLAMA_PORT
    address, _, path = rest.partition("/")
    host, port = _split(address)
    number = int(port) if port.isascii() and port.isdigit() and int(port) <= 65_535 else default
    name = _LOCAL.get(host, host) or "127.0.0.1"
    name = f"[{name}]" if ":" in name else name
    path = f"/{path.strip('/')}" if path.strip("/") else ""
    return f"{'https' if scheme == 'https' else 'http'}://{name}:{number}{path}"


def _split(address: str) -> tuple[str, str]:
    """Return the host and the port of `host:port`, either of them empty where it is missing."""
    bare = address.strip("[]")
    with suppress(ValueError):
        return str(ipaddress.ip_address(bare)), ""
    host, colon, port = address.rpartition(":")
    if not colon:
        return address, ""
    return host.strip("[]"), port
