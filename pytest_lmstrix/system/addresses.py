"""Addresses of servers, as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+):(\d{1,5})")
_ROOT = re.compile(r"/?|/v1/?|/api/v[01]/?")
"""Paths that clients of its HTTP interfaces are given as base URLs."""


def host_port(given: str) -> str:
    """Return the `host:port` in `given`, such as of `http://127.0.0.1:1234/v1`.

    Raises:
        ValueError: There is none, or it is the address of a server that speaks TLS.
    """
    scheme, _, rest = given.rpartition("://")
    if scheme.lower() in ("https", "wss"):
        raise ValueError(f"'{given}': TLS is not supported; use http:// or host:port")
    address, slash, path = rest.partition("/")
    port = _ADDRESS.fullmatch(address)
    known = scheme.lower() in ("", "http", "ws") and _ROOT.fullmatch(slash + path)
    if not known or port is None or not 1 <= int(port[1]) <= 65_535:
        raise ValueError(f"'{given}' is not host:port, such as 127.0.0.1:1234")
    return address


def engine_at(host: str) -> str:
    """Return the engine that `host` names, such as of `ollama://host` or `openai+http://host`.

    A plain address is that of an LM Studio.
    """
    scheme = host.rpartition("://")[0].lower()
    return "lmstudio" if scheme in ("", "http") else scheme.partition("+")[0]


def address_of(host: str) -> str:
    """Return `host` without the name of its engine: `host:port` or a URL."""
    scheme, _, rest = host.rpartition("://")
    _, plus, transport = scheme.partition("+")
    return f"{transport}://{rest}" if plus else rest


def hosts_of(engine: str, hosts: Iterable[str]) -> tuple[str, ...]:
    """Return those of `hosts` where `engine` runs."""
    return tuple(host for host in hosts if engine_at(host) == engine)


@lru_cache
def server_url(given: str) -> str:
    """Return the base URL of an OpenAI-compatible server, without its `/v1`.

    Raises:
        ValueError: It is not such a URL.
    """
    wrong = ValueError("must be the URL of a server, such as http://127.0.0.1:8000/v1")
    parts = urlsplit(given)
    try:
        name, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a password; api_key_env names the variable with the key")
    if parts.scheme.lower() not in ("http", "https") or not name or port == 0:
        raise wrong
    if parts.query or parts.fragment or re.search(r"\s", given):
        raise wrong
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    host = f"[{name}]" if ":" in name else name
    return f"{parts.scheme.lower()}://{host}{f':{port}' if port else ''}{path}"
