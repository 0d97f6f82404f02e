"""Damaged, torn, too long and newer lines: reported and set aside, and no other line is lost."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from pytest_lmstrix.registry import lines
from pytest_lmstrix.registry.health import check_health
from pytest_lmstrix.registry.lines import encode
from pytest_lmstrix.registry.store import Registry
from tests.registry.results import a_result
from tests.registry.store.registry_files import corrupt_files, written


def test_a_time_out_of_range_in_utc_is_damage(path: Path) -> None:
    line = encode(a_result()).replace(b"2026-03-01T12:00:00Z", b"0001-01-01T00:00:00+14:00")
    loaded = written(path, line, encode(a_result())).load()
    assert (loaded.results, [flaw.line for flaw in loaded.damaged]) == (1, [1])


def test_lines_of_a_newer_schema_are_kept_and_reported_but_not_damaged(path: Path) -> None:
    newer = b'{"schema":2,"model":"m","verdict":"sideways"}\n'
    same_shape = encode(a_result(16384)).replace(b'"schema":1', b'"schema":2')
    registry = written(path, newer, encode(a_result()), same_shape)
    loaded = registry.load()
    assert [flaw.line for flaw in loaded.newer] == [1, 3]
    assert (loaded.results, loaded.damaged, loaded.set_aside) == (1, (), None)
    assert registry.verified_context("m") == 8192


@pytest.mark.parametrize(
    "damage",
    [b"\0" * 300, b"\xff\xfe{}", b"{", b"not json", b"[1]", b"{}", b'{"schema":0}', b"[" * 10**5],
    ids=["zeros", "binary", "half", "text", "list", "empty", "schema", "deep"],
)
def test_a_damaged_line_is_set_aside_once_and_loses_no_other(path: Path, damage: bytes) -> None:
    lines = encode(a_result()), damage + b"\n", encode(a_result(16384))
    loaded = written(path, *lines).load()
    assert loaded.results == 2
    assert [(flaw.line, flaw.raw) for flaw in loaded.damaged] == [(2, damage + b"\n")]
    assert loaded.set_aside is not None
    assert loaded.set_aside.read_bytes() == damage + b"\n"
    assert path.read_bytes() == b"".join(lines)
    again = Registry(path).load()
    assert again.damaged == loaded.damaged
    assert again.set_aside is None
    assert corrupt_files(path) == [loaded.set_aside]


def test_an_unreadable_earlier_copy_causes_at_most_one_more(path: Path) -> None:
    registry = written(path, b"one\n", encode(a_result()))
    blocked = path.with_name("registry.corrupt-20260101-000000-000000.jsonl")
    blocked.mkdir()
    loaded = registry.load()
    assert loaded.results == 1
    assert loaded.set_aside is not None
    assert loaded.set_aside.read_bytes() == b"one\n"
    assert Registry(path).load().set_aside is None


def test_only_new_damage_is_set_aside(path: Path) -> None:
    registry = written(path, b"one\n", encode(a_result()))
    registry.load()
    with path.open("ab") as stream:
        stream.write(b"one\ntwo\n")
    loaded = registry.load()
    assert [flaw.line for flaw in loaded.damaged] == [1, 3, 4]
    assert [file.read_bytes() for file in corrupt_files(path)] == [b"one\n", b"two\n"]


@pytest.mark.parametrize("length", [1, 50, -2])
def test_the_next_result_is_not_appended_to_a_torn_last_line(path: Path, length: int) -> None:
    torn = encode(a_result(4096))[:length]
    registry = written(path, encode(a_result()), torn)
    loaded = registry.load()
    assert loaded.results == 1
    assert loaded.torn is not None
    assert (loaded.torn.line, loaded.torn.raw) == (2, torn)
    assert (loaded.damaged, corrupt_files(path)) == ((), [])
    registry.append(a_result(16384))
    loaded = registry.load()
    assert loaded.results == 2
    assert loaded.torn is None
    assert [flaw.line for flaw in loaded.damaged] == [2]
    assert corrupt_files(path)[0].read_bytes() == torn + b"\n"


def test_a_last_line_without_newline_is_a_result(path: Path) -> None:
    registry = written(path, encode(a_result()), encode(a_result(16384)).rstrip())
    assert registry.load().results == 2
    registry.append(a_result(4096))
    with path.open("ab") as stream:
        stream.write(b"x\n")
    loaded = registry.load()
    assert loaded.results == 3
    assert [flaw.line for flaw in loaded.damaged] == [4]


def test_windows_line_ends_blank_lines_and_a_byte_order_mark_are_not_damage(path: Path) -> None:
    line = encode(a_result())
    registry = written(path, b"\xef\xbb\xbf", line, line.replace(b"\n", b"\r\n"), b"\n \r\n", line)
    loaded = registry.load()
    assert (loaded.results, loaded.damaged, loaded.torn) == (3, (), None)


def test_a_line_that_is_too_long_is_damaged_and_read_in_pieces(path: Path) -> None:
    good = encode(a_result())
    registry = written(path, good, b'{"schema":1,"detail":"')
    with path.open("ab") as file:
        file.truncate(60_000_000)  # sparse: zeros that take no room on the disk
        file.seek(0, os.SEEK_END)
        file.write(b'"}\n' + good)
    tracemalloc.start()
    try:
        loaded = registry.load()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * lines.MAX_LINE_BYTES
    assert loaded.results == 2
    (flaw,) = loaded.damaged
    size = 60_000_000 - len(good) + 3
    assert (flaw.line, flaw.size_bytes) == (2, size)
    assert flaw.reason == f"has {size:,} bytes, 16,000,000 are allowed"
    assert loaded.set_aside is not None
    assert loaded.set_aside.stat().st_size == 1_001
    assert registry.load().results == 2
    registry.append(a_result(4096))
    assert (registry.load().results, len(registry.load().damaged)) == (3, 1)
    assert [each.severity for each in check_health(path).findings if each.line] == ["error"]


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("beyond", [0, 1, 250])
def test_a_line_may_be_as_long_as_the_limit_and_no_longer(
    path: Path, monkeypatch: pytest.MonkeyPatch, beyond: int, end: bytes
) -> None:
    good, line = encode(a_result()), encode(a_result(detail="x" * 500)).rstrip(b"\n") + end
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", len(line) - beyond)
    registry = written(path, good, line)
    loaded = registry.load()
    assert loaded.results == (1 if beyond else 2)
    assert len(loaded.damaged) == bool(beyond and end)
    assert (loaded.torn is not None) == bool(beyond and not end)
    registry.append(a_result(4096))  # which ends the line that was torn
    assert (registry.load().results, len(registry.load().damaged)) == (
        3 - bool(beyond), bool(beyond),
    )  # fmt: skip


def test_a_result_that_could_not_be_read_back_is_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1_000)
    with pytest.raises(ValueError, match=r"has 1,\d\d\d bytes, 1,000 are allowed"):
        Registry(path).append(a_result(detail="x" * 1_000))
    assert not path.exists()
