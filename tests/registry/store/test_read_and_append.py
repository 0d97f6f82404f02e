"""Results are appended, and read back."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH, Result
from pytest_lmstrix.registry.fold import Fold
from pytest_lmstrix.registry.lines import decode, encode
from pytest_lmstrix.registry.store import Registry
from tests.registry.results import a_result
from tests.registry.store.registry_files import written


def test_appended_results_are_read_back(path: Path) -> None:
    results = (
        a_result(),
        a_result(4096, "timeout", replies=("96", "\x1b[31m\n"), recall={"0.5": True}),
    )
    for result in results:
        Registry(path).append(result)
    assert tuple(Registry(path).results()) == results
    assert Registry(path).load().results == 2


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be synced")
def test_a_result_is_one_write_and_one_sync_and_a_new_file_syncs_its_folder(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    write, fsync = os.write, os.fsync

    def written(descriptor: int, data: bytes) -> int:
        done.append("write")
        return write(descriptor, data)

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", written)
        patch.setattr(os, "fsync", synced)
        for size in (8192, 16384):
            Registry(path).append(a_result(size))
        Registry(path).backup()
    assert done == ["write", "file", "folder", "write", "file", "file", "folder"]


def test_a_missing_registry_has_no_results(path: Path) -> None:
    registry = Registry(path)
    assert registry.load().results == 0
    assert list(registry.results()) == []
    assert registry.status("m") is None
    assert registry.verified_context("m") is None
    assert registry.history("m") == ()
    assert registry.backup() is None
    assert not path.exists()


def test_each_line_is_one_json_object_with_its_schema(path: Path) -> None:
    Registry(path).append_many([a_result(), a_result(detail="two\nlines")])
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    assert all(line.startswith(b'{"schema":1,') and line.endswith(b"}\n") for line in lines)


def test_times_are_written_in_utc() -> None:
    tokyo = datetime(2026, 3, 1, 21, tzinfo=timezone(timedelta(hours=9)))
    assert b'"at":"2026-03-01T12:00:00Z"' in encode(a_result(at=tokyo))


@pytest.mark.parametrize("written", [b"12:00:00", b"21:00:00+09:00"], ids=["none", "tokyo"])
def test_times_without_zone_or_in_other_zones_are_read_as_utc(written: bytes) -> None:
    at = decode(encode(a_result()).replace(b"12:00:00Z", written)).at
    assert (at, at.tzinfo) == (datetime(2026, 3, 1, 12, tzinfo=UTC), UTC)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"at": datetime(2026, 3, 1)}, "time zone"),
        ({"context_length": 0}, "context_length must be 1 to 2,147,483,647, got 0"),
        ({"context_length": MAX_CONTEXT_LENGTH + 1}, "got 2,147,483,648"),
        ({"context_length": "many"}, "context_length"),
        ({"schema": 2}, "schema must be 1"),
    ],
    ids=["naive-time", "zero", "too-large", "wrong-type", "schema"],
)
def test_results_that_violate_the_schema_are_not_written(
    path: Path, fields: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Registry(path).append(a_result(**fields))  # type: ignore[arg-type]
    assert not path.exists()


@given(
    detail=st.text(st.characters(exclude_categories=())),
    seconds=st.floats(0, 10_000_000) | st.none(),
)
def test_any_text_and_any_valid_number_can_be_written(detail: str, seconds: float | None) -> None:
    line = encode(a_result(detail=detail, ttft_seconds=seconds))
    assert line.count(b"\n") == 1
    assert decode(line).detail == detail.encode("utf-8", "replace").decode()


def test_unknown_fields_are_tolerated() -> None:
    assert decode(encode(a_result()).replace(b"{", b'{"new":[1],', 1)) == a_result()


def test_lines_appended_by_others_are_read(path: Path) -> None:
    reader = Registry(path)
    assert reader.verified_context("m") is None
    for size in (8192, 16384):
        Registry(path).append(a_result(size))
        assert reader.verified_context("m") == size


@pytest.mark.parametrize("lines_read_before", [0, 1], ids=["first-read", "later-read"])
def test_an_interrupted_read_does_not_affect_the_next_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, lines_read_before: int
) -> None:
    lines = [encode(a_result(size)) for size in (2048, 4096, 8192)]
    lines.insert(2, b"damaged\n")
    registry = written(path, *lines[:lines_read_before])
    assert registry.load().results == lines_read_before
    written(path, *lines)
    add = Fold.add

    def interrupted(fold: Fold, line: Result) -> None:
        if line.context_length == 8192:
            raise KeyboardInterrupt
        add(fold, line)

    with monkeypatch.context() as patch:
        patch.setattr(Fold, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            registry.load()
    assert registry.verified_context("m") == 8192
    loaded = registry.load()
    assert (loaded.results, [flaw.line for flaw in loaded.damaged]) == (3, [3])


def test_a_truncated_or_replaced_registry_is_read_again(path: Path) -> None:
    registry = written(path, encode(a_result()), encode(a_result(16384)))
    assert registry.verified_context("m") == 16384
    path.write_bytes(encode(a_result()))
    assert registry.verified_context("m") == 8192
    other = path.with_name("other")
    other.write_bytes(encode(a_result(4096)) * 5)
    other.replace(path)
    assert registry.verified_context("m") == 4096
    same_size = path.with_name("other")
    same_size.write_bytes(encode(a_result(2048)) * 5)
    same_size.replace(path)
    assert registry.verified_context("m") == 2048
    path.unlink()
    assert registry.status("m") is None


def test_history_lists_all_results_of_the_model_oldest_first(path: Path) -> None:
    strange = 'a"\\é'
    mine = [a_result(size, model=strange) for size in (3, 1, 2)]
    registry = Registry(path)
    for result in mine:
        registry.append_many([result, a_result(7)])
    assert registry.history(strange) == tuple(mine)


def test_known_returns_the_newest_result_of_each_case(path: Path) -> None:
    registry = Registry(path)
    registry.append_many(
        [
            a_result(8192, "timeout"),
            a_result(8192, host="b:1234"),
            a_result(8192, "wrong_answer", check_version=2),
            a_result(8192, "unreachable"),
            a_result(4096, check="fast"),
        ]
    )
    found = registry.known("m", "full", 8192)
    assert [(one.host, one.verdict, one.check_version) for one in found] == [
        (None, "wrong_answer", 2),
        ("b:1234", "ok", 1),
    ]
    assert [one.check for one in registry.known("m")] == ["fast", "full", "full"]
    assert registry.known("m", fingerprint="size:2") == ()
    assert registry.known("m", engine="llamacpp") == ()
    assert registry.known("m", settings='{"threads":2}') == ()
    assert registry.known("absent") == ()


def test_importing_the_registry_imports_neither_pytest_nor_an_engine() -> None:
    code = (
        "import sys, pytest_lmstrix.registry.store, pytest_lmstrix.registry.health;"
        "print({'pytest', 'lmstudio', 'httpx', 'yaml', 'rich', 'psutil'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_results_compare_by_all_fields(path: Path) -> None:
    registry = Registry(path)
    registry.append(a_result(seed=2**63, recall={"0.05": False}))
    [result] = registry.results()
    assert isinstance(result, Result)
    assert result == a_result(seed=2**63, recall={"0.05": False})
