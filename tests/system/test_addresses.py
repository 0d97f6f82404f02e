"""Addresses of LM Studio servers."""

from __future__ import annotations

import pytest

from pytest_lmstrix.system.addresses import address_of, engine_at, host_port, hosts_of, server_url


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


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("HTTPS://Models.Example/api/v1", "https://models.example/api"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_the_url_of_a_server_is_read(given: str, url: str) -> None:
    assert server_url(given) == url


@pytest.mark.parametrize(
    "given",
    ["", "127.0.0.1:8000", "ftp://host", "http://", "http://host:0", "http://host:99999",
     "http://host/v1?key=1", "http://ho st", "http://me:secret@host"],
)  # fmt: skip
def test_another_text_is_not_the_url_of_a_server(given: str) -> None:
    with pytest.raises(ValueError, match="must") as wrong:
        server_url(given)
    assert "secret" not in str(wrong.value)


@pytest.mark.parametrize(
    ("host", "engine", "address"),
    [
        ("127.0.0.1:1234", "lmstudio", "127.0.0.1:1234"),
        ("http://127.0.0.1:1234", "lmstudio", "127.0.0.1:1234"),
        ("lmstudio://127.0.0.1:1234", "lmstudio", "127.0.0.1:1234"),
        ("ollama://[::1]:11434", "ollama", "[::1]:11434"),
        ("openai+https://example.test", "openai", "https://example.test"),
        ("Parrot://a:1", "parrot", "a:1"),
        ("parrot+http://a:1", "parrot", "http://a:1"),
    ],
)
def test_a_host_names_its_engine(host: str, engine: str, address: str) -> None:
    assert (engine_at(host), address_of(host)) == (engine, address)
    assert hosts_of(engine, ["other://a:1", host]) == (host,)
    assert hosts_of("others", ["other://a:1", host]) == ()
