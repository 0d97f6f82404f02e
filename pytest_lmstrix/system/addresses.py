"""Addresses of LM Studio servers, as people write them."""

from __future__ import annotations

import re

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
