"""Weights from the Hugging Face hub: huggingface_hub against a stand-in on loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.weights.fetch import fetch, is_cached
from tests.standin.file_server import FileServer, file_server, sha256

pytest.importorskip("huggingface_hub")

CONTENT = b"GGUF" + bytes(range(256)) * 1000
SOURCE = "hf://owner/repo/sub/f.gguf"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    with file_server(CONTENT) as server:
        server.paths = {"/owner/repo/resolve/main/sub/f.gguf", "/owner/repo/resolve/v2/sub/f.gguf"}
        server.etag = f'"{sha256(CONTENT)}"'
        monkeypatch.setenv("HF_ENDPOINT", server.base)
        monkeypatch.setenv("LMSTRIX_CACHE_DIR", str(tmp_path))
        yield server


def get(source: str = SOURCE, sha256: str | None = None) -> Path:
    return fetch(source, sha256=sha256, base_dir=Path())


def fails(verdict: Verdict, source: str = SOURCE, sha256: str | None = None) -> str:
    with pytest.raises(Failure) as caught:
        get(source, sha256)
    assert caught.value.verdict is verdict
    assert "\n" not in caught.value.text
    return caught.value.text


def test_download_once(hub: FileServer) -> None:
    path = get(SOURCE, sha256(CONTENT))
    assert path.read_bytes() == CONTENT
    assert path.name.startswith("f-")
    asked = len(hub.requests)
    assert get() == is_cached(SOURCE, base_dir=Path()) == path
    assert len(hub.requests) == asked
    assert not path.with_name(f"{path.name}.part").exists()


def test_revision(hub: FileServer) -> None:
    assert get(f"{SOURCE}@v2") != get()
    assert any("/resolve/v2/" in path for _, path, _ in hub.requests)


def test_an_interrupted_hub_download_is_resumed(hub: FileServer) -> None:
    hub.cut_after = 1000
    fails(Verdict.UNREACHABLE)
    hub.cut_after = None
    assert get(SOURCE, sha256(CONTENT)).read_bytes() == CONTENT
    assert hub.requests[-1][2] == "bytes=1000-"


def test_a_missing_repository_or_file_is_an_error(hub: FileServer) -> None:
    assert "hf://owner/repo/none.gguf" in fails(
        Verdict.MODEL_NOT_FOUND, "hf://owner/repo/none.gguf"
    )


def test_an_invalid_repository_name_is_an_error(hub: FileServer) -> None:
    fails(Verdict.MODEL_NOT_FOUND, "hf://owner/a--b/f.gguf")


def test_a_wrong_hash_is_an_error(hub: FileServer) -> None:
    assert "0" * 64 in fails(Verdict.CORRUPTED, SOURCE, "0" * 64)
    assert get().read_bytes() == CONTENT


def test_a_hub_server_error_is_reported(hub: FileServer) -> None:
    hub.status = 500
    fails(Verdict.UNREACHABLE)


def test_an_unreachable_hub_is_reported_immediately(
    hub: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(seconds: float) -> None:
        raise AssertionError("waits to try again")

    monkeypatch.setattr("time.sleep", wait)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    fails(Verdict.UNREACHABLE)


def test_a_missing_hub_extra_is_reported(hub: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'pytest-lmstrix[hf]'" in fails(Verdict.UNREACHABLE)


def test_requests_have_a_user_agent(hub: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    get()
    assert set(hub.authorizations[-2:]) == {"Bearer hf_secret"}
