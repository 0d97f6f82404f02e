"""Atomic replace: the file has the old content or all of the new, even after a failure."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_lmstrix.system.atomic_write import atomic_write

posix = pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.txt"


def test_a_new_file_is_written_byte_for_byte(path: Path) -> None:
    atomic_write(path, b"a\r\n\0b\n")
    assert path.read_bytes() == b"a\r\n\0b\n"
    assert list(path.parent.iterdir()) == [path]


def test_an_old_file_is_replaced_by_several_chunks(path: Path) -> None:
    path.write_bytes(b"the old content")
    atomic_write(path, (part for part in (b"new", b"", b"er")))
    assert path.read_bytes() == b"newer"
    assert list(path.parent.iterdir()) == [path]


@posix
@pytest.mark.parametrize(("umask", "mode", "expected"), [
    (0o022, None, 0o644), (0o077, None, 0o600), (0o077, 0o644, 0o644), (0o000, 0o600, 0o600),
])  # fmt: skip
def test_a_new_file_gets_the_given_mode_or_the_umask(
    path: Path, umask: int, mode: int | None, expected: int
) -> None:
    before = os.umask(umask)
    try:
        atomic_write(path, b"", mode=mode)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == expected


@posix
def test_a_replaced_file_keeps_its_mode(path: Path) -> None:
    path.write_bytes(b"old")
    path.chmod(0o640)
    atomic_write(path, b"new", mode=0o644)
    assert path.stat().st_mode & 0o777 == 0o640


@posix
def test_temporary_files_are_no_more_readable_than_the_old_file(path: Path) -> None:
    def parts() -> Iterator[bytes]:
        modes.extend(each.stat().st_mode & 0o077 for each in path.parent.iterdir())
        yield b"secret"

    modes: list[int] = []
    path.write_bytes(b"old")
    path.chmod(0o600)
    atomic_write(path, parts())
    assert modes == [0, 0]


def test_a_symlink_is_replaced_and_its_target_kept(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.txt"
    target.write_bytes(b"target")
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("no symbolic links here")
    atomic_write(path, b"new")
    assert not path.is_symlink()
    assert (path.read_bytes(), target.read_bytes()) == (b"new", b"target")


@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "old"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("place", ["data", "fsync", "before_replace", "replace"])
def test_a_failed_write_changes_nothing(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    old: bytes | None,
    fault: BaseException,
    place: str,
) -> None:
    def fail(*_: object) -> None:
        raise fault

    def parts() -> Iterator[bytes]:
        yield b"half"
        if place == "data":
            fail()

    if old is not None:
        path.write_bytes(old)
    if place == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    if place == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    check = fail if place == "before_replace" else lambda: None
    with pytest.raises(type(fault)):
        atomic_write(path, parts(), before_replace=check)
    assert [each.read_bytes() for each in path.parent.iterdir()] == ([] if old is None else [old])


def test_the_old_content_stays_until_the_new_one_is_synced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"old")
    seen: list[bytes] = []
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        seen.append(path.read_bytes())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    atomic_write(path, b"new", before_replace=lambda: seen.append(path.read_bytes()))
    folder = [] if sys.platform == "win32" else [b"new"]
    assert seen == [b"old", b"old", *folder]


def test_a_non_durable_write_is_not_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    atomic_write(path, b"new", durable=False)
    assert path.read_bytes() == b"new"
    assert synced == []


def test_a_missing_folder_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "gone" / "file.txt", b"new")
    assert list(tmp_path.iterdir()) == []
