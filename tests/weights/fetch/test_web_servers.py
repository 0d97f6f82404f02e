"""Downloads from web servers: complete files, verified hashes, resumed parts, and clear errors."""

from __future__ import annotations

import errno

import httpx
import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.weights import download
from pytest_lmstrix.weights.fetch import fetch
from tests.standin.file_server import FileServer, file_server, sha256
from tests.weights.fetch.getter import CONTENT, HASH, NOWHERE, Getter


def test_a_second_fetch_uses_the_cache(get: Getter, server: FileServer) -> None:
    source = f"{server.base}/some%20model.Q4.gguf"
    assert get.is_cached(source) is None
    path = get(source)
    assert path.read_bytes() == CONTENT
    assert path.name.startswith("some_model.Q4-")
    assert path.suffix == ".gguf"
    assert get.progress[0] == (0, len(CONTENT))
    assert get.progress[-1] == (len(CONTENT), len(CONTENT))
    assert get(source) == get(source, None) == get.is_cached(source) == path
    assert len(server.requests) == 1
    assert not path.with_name(f"{path.name}.part").exists()
    assert get.is_cached(source, "0" * 64) is None


def test_two_sources_with_one_file_name_are_cached_separately(
    get: Getter, server: FileServer
) -> None:
    assert get(f"{server.base}/a/f.gguf") != get(f"{server.base}/b/f.gguf")


def test_the_cache_folder_is_set_by_the_environment(
    get: Getter, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMSTRIX_CACHE_DIR", str(get.base_dir / "named"))
    path = fetch(f"{server.base}/f.gguf", base_dir=get.base_dir)
    assert path.parent == get.base_dir / "named" / "weights"


def test_an_interrupted_download_is_resumed(get: Getter, server: FileServer) -> None:
    source = f"{server.base}/f.gguf"
    server.cut_after = 100_000
    get.fails(source, Verdict.UNREACHABLE)
    assert get.is_cached(source) is None
    server.cut_after = None
    assert get(source).read_bytes() == CONTENT
    assert server.requests[-1] == ("GET", "/f.gguf", "bytes=100000-")


@pytest.mark.parametrize("why", ["no ranges", "changed", "no validator", "weak", "other part"])
def test_an_interrupted_download_restarts_if_it_cannot_resume(
    get: Getter, server: FileServer, why: str
) -> None:
    source = f"{server.base}/f.gguf"
    server.cut_after = 100_000
    if why == "no validator":
        server.etag = None
    if why == "weak":
        server.etag = 'W/"v1"'
    get.fails(source, Verdict.UNREACHABLE)
    server.cut_after = None
    server.ranges = why != "no ranges"
    server.range_start = -10 if why == "other part" else 0
    if why == "changed":
        server.etag, server.content = '"v2"', b"GGUF" + CONTENT[::-1]
    assert get(source, None).read_bytes() == server.content
    if why in ("no validator", "weak"):
        assert server.requests[-1][2] is None, "nothing to tell whether the rest still fits"


def test_a_complete_partial_file_is_not_downloaded_again(get: Getter, server: FileServer) -> None:
    source = f"{server.base}/f.gguf"
    server.cut_after = 100_000
    get.fails(source, Verdict.UNREACHABLE)
    (part,) = get.cache_dir.glob("weights/*.part/part")
    part.write_bytes(CONTENT)
    server.cut_after = None
    assert get(source).read_bytes() == CONTENT
    assert [asked for _, _, asked in server.requests] == [None, f"bytes={len(CONTENT)}-", None]


def test_a_file_with_a_wrong_hash_is_removed(get: Getter, server: FileServer) -> None:
    source = f"{server.base}/f.gguf"
    server.content = b"something else"
    text = get.fails(source, Verdict.CORRUPTED)
    assert HASH in text
    assert sha256(b"something else") in text
    assert "the next run downloads it again" in text
    server.content = CONTENT
    assert get(source).read_bytes() == CONTENT


@pytest.mark.parametrize("expected", [HASH, None])
def test_a_damaged_cached_file_is_downloaded_again(
    get: Getter, server: FileServer, expected: str | None
) -> None:
    path = get(f"{server.base}/f.gguf", expected)
    path.write_bytes(b"GGUF but no more")
    assert get.is_cached(f"{server.base}/f.gguf") is None
    assert get(f"{server.base}/f.gguf", expected).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_cached_file_with_a_lost_or_torn_record_is_verified_again(
    get: Getter, server: FileServer
) -> None:
    path = get(f"{server.base}/f.gguf")
    record = path.with_name(f"{path.name}.json")
    for content in (b'{"sha2', b"", b"[]"):
        record.write_bytes(content)
        assert get(f"{server.base}/f.gguf") == path
    record.unlink()
    assert get(f"{server.base}/f.gguf") == path
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (404, Verdict.MODEL_NOT_FOUND),
        (410, Verdict.MODEL_NOT_FOUND),
        (401, Verdict.UNREACHABLE),
        (403, Verdict.UNREACHABLE),
        (429, Verdict.UNREACHABLE),
        (500, Verdict.UNREACHABLE),
        (503, Verdict.UNREACHABLE),
    ],
)
def test_status(get: Getter, server: FileServer, status: int, verdict: Verdict) -> None:
    server.status = status
    assert str(status) in get.fails(f"{server.base}/f.gguf", verdict)


def test_a_web_page_is_not_accepted_as_a_model(get: Getter, server: FileServer) -> None:
    server.content_type = "text/html; charset=utf-8"
    assert "a web page" in get.fails(f"{server.base}/f", Verdict.UNREACHABLE, None)


def test_redirects_are_followed(get: Getter, server: FileServer) -> None:
    with file_server(b"") as first:
        first.redirect = f"{server.base}/elsewhere"
        assert get(f"{first.base}/f.gguf").read_bytes() == CONTENT
        first.redirect = f"{first.base}/round"
        assert "redirect" in get.fails(f"{first.base}/g.gguf", Verdict.UNREACHABLE)


def test_a_missing_server_is_reported_immediately(get: Getter) -> None:
    assert NOWHERE in get.fails(NOWHERE, Verdict.UNREACHABLE)


def test_a_full_disk_is_an_error(
    get: Getter, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_save", full)
    text = get.fails(f"{server.base}/f.gguf", Verdict.UNREACHABLE)
    assert "No space left on device" in text
    assert "LMSTRIX_CACHE_DIR" in text


def test_a_cache_folder_that_cannot_be_created_is_an_error(get: Getter, server: FileServer) -> None:
    get.cache_dir.write_text("a file is in the way", encoding="utf-8")
    get.fails(f"{server.base}/f.gguf", Verdict.UNREACHABLE)


@pytest.mark.parametrize(
    ("start", "hop"),
    [
        ("HTTPS://host/f", "http://host/f"),
        ("https://host/f", "http://127.0.0.1/f"),
        ("http://127.0.0.1/f", "http://host/f"),
    ],
)
def test_a_redirect_from_https_to_http_is_refused(start: str, hop: str) -> None:
    with pytest.raises(Failure, match="not encrypted"):
        download.check_hop(start, httpx.URL(hop))
    download.check_hop(start, httpx.URL("https://elsewhere/f"))


def test_an_empty_or_non_gguf_file_is_not_kept(get: Getter, server: FileServer) -> None:
    for content in (b"", b"a web page"):
        server.content = content
        get.fails(f"{server.base}/f.gguf", Verdict.UNREACHABLE, None)
        assert get.is_cached(f"{server.base}/f.gguf") is None
    server.content, server.etag = CONTENT, '"caf\xe9"'
    assert get(f"{server.base}/f.gguf").read_bytes() == CONTENT
