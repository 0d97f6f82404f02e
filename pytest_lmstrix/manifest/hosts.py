"""The hosts of models.yaml, and which of them a run uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from pytest_lmstrix.core.types import Host
from pytest_lmstrix.system.addresses import host_address, server_of


def host_of_fields(fields: dict[str, Any]) -> Host:
    """Return the host of a manifest with the values of `schema.HOST_KEYS`.

    Raises:
        ValueError: A key is missing, or the address is not valid; the text begins with the key.
    """
    for key in ("name", "url"):
        if key not in fields:
            raise ValueError(f"{key} is missing")
    if "@" in fields["url"]:
        raise ValueError("url must not hold a user name or a password")
    try:
        address = host_address(fields["url"], fields.get("engine"))
    except ValueError as error:
        raise ValueError(f"url {error}") from None
    return Host(
        address=address,
        name=fields["name"],
        tags=fields.get("tags", ()),
        slots=fields.get("slots", 1),
        memory_bytes=fields.get("memory"),
    )


def words_of(host: Host) -> tuple[str, ...]:
    """Return the words by which models may ask for `host`: its name and its tags."""
    return tuple(filter(None, (host.name, *host.tags)))


def hosts_of_run(given: Iterable[str], known: Sequence[Host]) -> tuple[Host, ...]:
    """Return the hosts `given` by address or name, or else all that are `known` of the manifest.

    A server that is given twice is one host, however its address is spelled.

    Raises:
        ValueError: A name is not known.
    """
    named = {host.name: host for host in known if host.name is not None}
    by_server = {server_of(host.address): host for host in known}
    found: dict[object, Host] = {}
    for each in given:
        host = named.get(each) or by_server.get(server_of(each))
        if host is None and ":" not in each:
            raise ValueError(f"'{each}' is not {_valid(each, named)}")
        host = host or Host(address=each)
        found.setdefault(server_of(host.address), host)
    return tuple(found.values()) or tuple(known)


def _valid(given: str, names: Iterable[str]) -> str:
    valid = "host:port, such as 127.0.0.1:1234, ENGINE://host:port or the name of a host of the"
    near = get_close_matches(given, names, n=1)
    return f"{valid} manifest{f'; did you mean {near[0]!r}?' if near else ''}"
