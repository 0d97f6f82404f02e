"""Addresses of LM Studio servers."""

from __future__ import annotations

import pytest

from pytest_lmstrix.system.addresses import host_port


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("127.0.0.1:1234", "127.0.0.1:1234"),
        ("[::1]:1234", "[::1]:1234"),
        ("http://studio.local:1234", "studio.local:1234"),
        ("http://studio.local:1234/", "studio.local:1234"),
        ("http://studio.local:1234/v1", "studio.local:1234"),
        ("HTTP://studio.local:1234/api/v0/", "studio.local:1234"),
        ("ws://studio.local:1234", "studio.local:1234"),
    ],
)
def test_an_address_may_be_written_as_the_base_url_of_its_clients(given: str, host: str) -> None:
    assert host_port(given) == host


@pytest.mark.parametrize("given", ["https://studio.local:1234/v1", "wss://studio.local:1234"])
def test_tls_is_refused_by_name(given: str) -> None:
    with pytest.raises(ValueError, match=r"TLS is not supported; use http:// or host:port$"):
        host_port(given)


@pytest.mark.parametrize(
    "given",
    ["", "studio.local", "http://studio.local", "a:0", "a:65536", "ftp://a:1", "a:1/v2", "a b:1"],
)
def test_whatever_else_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="is not host:port, such as"):
        host_port(given)
