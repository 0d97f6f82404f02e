"""Local files are used in place and hashed once."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.verdicts import Verdict
from tests.standin.file_server import sha256
from tests.weights.fetch.getter import CONTENT, HASH, Getter


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
