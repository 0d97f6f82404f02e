"""`fetch` with a temporary cache, and the file that tests fetch."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.weights.fetch import fetch, is_cached
from tests.standin.file_server import sha256

CONTENT = b"GGUF" + bytes(range(256)) * 1000
HASH = sha256(CONTENT)
NOWHERE = "http://127.0.0.1:9/f.gguf"


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
