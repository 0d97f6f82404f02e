"""The headers of a split model on a web server, without the weights."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.weights import remote_header
from pytest_lmstrix.weights.fetch import header_path, is_header
from pytest_lmstrix.weights.header import header_digest
from pytest_lmstrix.weights.preflight import preflight
from pytest_lmstrix.weights.remote_header import fetch_header
from pytest_lmstrix.weights.source import part_sources, parts
from tests.standin import header_file
from tests.standin.range_server import range_server

MIB = 1024 * 1024
FIRST = "big-00001-of-00010.gguf"


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMSTRIX_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def split(tmp_path: Path) -> list[Path]:
    """A Llama of 70 billion parameters in ten files."""
    return parts(header_file.write_split_llama_70b(tmp_path / "big.gguf"))


def test_the_headers_of_a_split_36_gib_model_take_less_than_8_mib(split: list[Path]) -> None:
    with range_server(*split) as server:
        header = fetch_header(f"{server.base}/{FIRST}")
        assert server.sent_bytes < 8 * MIB
    fetched = parts(header)
    assert [each.stat().st_size for each in fetched] == [each.stat().st_size for each in split]
    assert sum(each.stat().st_size for each in fetched) > 36 * 1024**3
    assert header_digest(header) == header_digest(split[0])
    assert all(is_header(each) for each in fetched)


def test_the_fetched_headers_are_those_of_a_whole_split_model(split: list[Path]) -> None:
    with range_server(*split) as server:
        found = preflight(fetch_header(f"{server.base}/{FIRST}"))
    assert (found.verdict, found.kind, len(found.parts)) == (None, "model", 10)


def test_split_headers_are_fetched_once(split: list[Path]) -> None:
    with range_server(*split) as server:
        first = fetch_header(f"{server.base}/{FIRST}")
        before = len(server.requests)
        assert fetch_header(f"{server.base}/{FIRST}") == first
        assert len(server.requests) == before


def test_only_the_headers_that_are_missing_are_fetched_again(split: list[Path]) -> None:
    with range_server(*split[:4]) as server:
        source = f"{server.base}/{FIRST}"
        with pytest.raises(Failure, match="big-00005-of-00010") as caught:
            fetch_header(source)
        assert caught.value.verdict is Verdict.MODEL_NOT_FOUND
        server.paths = tuple(split)
        server.requests.clear()
        fetch_header(source)
        assert len(server.requests) == 6


def test_the_hub_has_the_headers_of_split_models(
    split: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    with range_server(*split) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.base)
        header = fetch_header(f"hf://owner/repo/q4/{FIRST}@main")
        assert server.sent_bytes < 8 * MIB
    assert header_digest(header) == header_digest(split[0])


def test_too_many_files_are_refused_before_any_request(split: list[Path]) -> None:
    with range_server(*split) as server:
        with pytest.raises(Failure, match="99,999 files; headers of at most 100 are fetched"):
            fetch_header(f"{server.base}/big-00001-of-99999.gguf")
        assert server.requests == []


def test_a_later_file_is_fetched_alone_and_refused_by_name(split: list[Path]) -> None:
    with range_server(*split) as server:
        found = preflight(fetch_header(f"{server.base}/big-00002-of-00010.gguf"))
        assert len(server.requests) == 1
    assert found.verdict is Verdict.UNSUPPORTED
    assert "name the first of them" in found.reason


def test_a_long_header_of_a_later_file_is_fetched_whole(
    split: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_header, "FIRST_BYTES_OF_PART", struct.calcsize("<IIQQ"))
    with range_server(*split) as server:
        header = fetch_header(f"{server.base}/{FIRST}")
    assert header_digest(header) == header_digest(split[0])


@pytest.mark.parametrize(
    ("source", "second"),
    [
        ("https://host/a-00001-of-00002.gguf", "https://host/a-00002-of-00002.gguf"),
        ("https://h/x-00001-of-00002/a-00001-of-00002.gguf?download=true",
         "https://h/x-00001-of-00002/a-00002-of-00002.gguf?download=true"),
        ("hf://o/r/d/a-00001-of-00002.gguf@v1-00001-of-00002",
         "hf://o/r/d/a-00002-of-00002.gguf@v1-00001-of-00002"),
        ("https://host/a-00002-of-00002.gguf", None),
        ("https://host/a.gguf", None),
        ("https://host/a%2D00001-of-00002.gguf", None),
        ("pypi://name==1/a-00001-of-00002.gguf", None),
        ("a-00001-of-00002.gguf", None),
    ],
)  # fmt: skip
def test_the_sources_of_the_files_of_a_split_model(source: str, second: str | None) -> None:
    assert part_sources(source) == [source, *([second] if second else [])]


def test_a_header_is_never_among_the_weights(tmp_path: Path) -> None:
    for source in ("https://h/a.gguf", "https://h/a-00001-of-00002.gguf", "https://h/a"):
        assert is_header(header_path(source))
        assert not is_header(tmp_path / "headers" / source.rpartition("/")[2])


def test_a_file_with_the_name_of_a_part_alone_is_fetched_alone(tmp_path: Path) -> None:
    path = header_file.write_tiny_llama(tmp_path / "odd-00001-of-00003.gguf")
    with range_server(path) as server:
        header = fetch_header(f"{server.base}/{path.name}")
        assert len(server.requests) == 1
    assert header_digest(header) == header_digest(path)
