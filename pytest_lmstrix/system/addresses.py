"""Addresses of servers, as people write them."""

from __future__ import annotations

import ipaddress
import platform
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from urllib.parse import urlsplit

_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+):(\d{1,5})")
LM_STUDIO_PORT = 1234
OLLAMA_PORT = 11434
LOCAL = "this machine"
URL_ENGINES = ("openai", "llama-server")
"""Engines whose hosts are URLs."""
EMBEDDED = "llamacpp"
"""The engine that has no server."""
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


def host_address(given: str, engine: str | None = None) -> str:
    """Return a host in the form that names its engine, if that is not LM Studio.

    An `engine` may be named beside an address instead of in it.

    Raises:
        ValueError: It is not a host, or one of another engine.
    """
    if engine is not None:
        return _of_engine(given, engine)
    if given.lower().startswith(("https://", "ws://", "wss://")):
        return host_port(given)
    engine, address = engine_at(given), address_of(given)
    if engine == "lmstudio":
        return host_port(address)
    if engine == "ollama":
        return f"ollama://{ollama_host(given.lower().replace('ollama+http://', 'ollama://'))}"
    if engine == EMBEDDED:
        raise ValueError(
            f"'{given}': {EMBEDDED} is embedded, runs on this machine and has no hosts; a server of"
            " llama.cpp is llama-server+http://host:port"
        )
    if engine in URL_ENGINES:
        if not address.lower().startswith(("http://", "https://")):
            raise ValueError(f"'{given}' is not {engine}+http://host:port")
        return f"{engine}+{server_url(address)}"
    if not address:
        raise ValueError(f"'{given}' is not {engine}://host:port")
    return f"{given.rpartition('://')[0].lower()}://{given.rpartition('://')[2]}"


def _of_engine(given: str, engine: str) -> str:
    scheme = given.rpartition("://")[0].lower()
    if not scheme and engine != "lmstudio":
        given = f"{engine}{'+http' if engine in URL_ENGINES else ''}://{given}"
    elif scheme in ("http", "https") and engine != "lmstudio":
        given = f"{engine}+{given}"
    address = host_address(given)
    if engine_at(address) != engine.lower():
        raise ValueError(f"must be an address of engine {engine}, as the key engine says")
    return address


def ollama_host(given: str) -> str:
    """Return the `host:port` in `ollama://host[:port]`.

    Raises:
        ValueError: It is not such an address.
    """
    wrong = ValueError(f"'{given}' is not ollama://host:port, such as ollama://127.0.0.1:11434")
    parts = urlsplit(given)
    try:
        name, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme.lower() != "ollama" or not name or extra or port == 0:
        raise wrong
    name = f"[{name}]" if ":" in name else name
    return f"{name}:{port or OLLAMA_PORT}"


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


def server_of(host: str) -> tuple[str | int, ...]:
    """Return what two addresses of the same server have in common, as far as they show it."""
    scheme, _, rest = host.rpartition("://")
    authority, _, path = rest.partition("/")
    return (scheme.lower(), *name_and_port(authority), path)


def name_and_port(host: str) -> tuple[str, int]:
    """Return the name of a host without its spelling, and its port; this machine is `localhost`."""
    name, port = host.strip("[]"), LM_STUDIO_PORT
    with suppress(ValueError):  # the port is not a number
        if not _is_address(name):
            parts = urlsplit(host if "://" in host else f"//{host}")
            name, port = parts.hostname or host, parts.port or LM_STUDIO_PORT
    name = name.rstrip(".").lower()
    return ("localhost" if _is_here(name) else name), port


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


def _is_here(name: str) -> bool:
    if not _is_address(name):
        return name in ("localhost", "localhost.localdomain", platform.node().lower())
    address = ipaddress.ip_address(name)
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


@lru_cache(maxsize=1_000)
def remote_host(host: str | None) -> str | None:
    """Return `host`, or `None` if it is this machine, whatever the port."""
    if host is None:
        return None
    name = host.partition("://")[2] or host
    name = name.rpartition(":")[0].strip("[]") if ":" in name else name
    try:
        local = ipaddress.ip_address(name).is_loopback
    except ValueError:
        local = name.lower() in ("localhost", "local")  # the embedded engine is `local`
    return None if local else host


def shown_host(host: str | None) -> str:
    """Return the host of a result in words: its name or address, or `this machine`."""
    return remote_host(host) or LOCAL
