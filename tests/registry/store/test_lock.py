"""The lock of the registry: threads, processes, interrupts, and disks without locks."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import filelock
import psutil
import pytest

from pytest_lmstrix.registry import files
from pytest_lmstrix.registry.store import Registry, RegistryError
from tests.registry.results import a_result


def test_waiting_for_the_lock_times_out_with_the_file_named(path: Path) -> None:
    registry = Registry(path, lock_timeout_seconds=0.05)
    registry.append(a_result())
    with (
        filelock.FileLock(f"{path}.lock", is_singleton=False),
        pytest.raises(RegistryError, match=r"registry\.jsonl\.lock: another process has held"),
    ):
        in_thread(lambda: registry.append(a_result()))
    assert registry.load().results == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps files that are open")
def test_a_lock_file_deleted_before_locking_is_locked_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = Path(f"{path}.lock"), []

    def delayed(descriptor: int, *, blocking: bool) -> bool:
        if not taken:
            lock.unlink()
        taken.append(os.fstat(descriptor).st_ino)
        return filelock.lock_descriptor(descriptor, blocking=blocking)

    monkeypatch.setattr(files, "lock_descriptor", delayed)
    Registry(path).append(a_result())
    assert taken[1:] == [lock.stat().st_ino]
    assert Registry(path).load().results == 1


def test_a_disk_without_locks_is_an_error_naming_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files, "lock_descriptor", missing)
    with pytest.raises(RegistryError, match=r"registry\.jsonl\.lock: cannot be locked: No locks"):
        Registry(path).append(a_result())
    assert not path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no descriptors to count")
def test_waiting_for_a_lock_leaves_no_file_open(path: Path) -> None:
    Registry(path).append(a_result())
    before = psutil.Process().num_fds()
    with filelock.FileLock(f"{path}.lock", is_singleton=False), pytest.raises(RegistryError):
        Registry(path, lock_timeout_seconds=0.1).append(a_result())
    assert psutil.Process().num_fds() == before


@pytest.mark.skipif(sys.platform == "win32", reason="cannot fork")
def test_a_forked_child_does_not_keep_the_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inherited = []

    def forked(descriptor: int, *, blocking: bool) -> bool:
        inherited.append(os.dup(descriptor))  # as in a forked child
        return filelock.lock_descriptor(descriptor, blocking=blocking)

    monkeypatch.setattr(files, "lock_descriptor", forked)
    registry = Registry(path, lock_timeout_seconds=0.05)
    registry.append_many([a_result()])
    registry.append(a_result(4096))
    assert registry.load().results == len(inherited) == 2
    for descriptor in inherited:
        os.close(descriptor)


def test_ctrl_c_during_release_leaves_no_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(path, lock_timeout_seconds=0.05)

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "unlock_descriptor", interrupted)
        with pytest.raises(KeyboardInterrupt):
            registry.append(a_result())
    registry.append(a_result(4096))
    assert registry.load().results == 2


def test_on_windows_opening_a_busy_lock_file_is_retried(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Registry(path).append(a_result())
    refusals, opened = [True, True], os.open

    def busy(name: Path, *args: int) -> int:
        if name.suffix == ".lock" and refusals:
            refusals.pop()
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(name, *args)

    monkeypatch.setattr(files, "_WINDOWS", True)
    monkeypatch.setattr(os, "open", busy)
    Registry(path).append(a_result())
    assert not refusals
    assert Registry(path).load().results == 2


def in_thread(work: Callable[[], object]) -> None:
    """Run `work` in another thread (locks belong to threads), and re-raise its exception."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def test_reading_does_not_wait_for_the_lock(path: Path) -> None:
    registry = Registry(path, lock_timeout_seconds=0)
    registry.append(a_result())
    with filelock.FileLock(f"{path}.lock"):
        in_thread(lambda: registry.load())
    assert registry.load().results == 1


def test_all_paths_of_one_file_share_a_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Registry(path).append(a_result())
    monkeypatch.chdir(path.parent)
    relative = Registry(path.name)
    monkeypatch.chdir(path.parent.parent)
    relative.append(a_result())
    assert Registry(path).load().results == 2
    assert relative.path == Registry(path).path


def test_concurrent_threads_lose_no_results(path: Path) -> None:
    def write(number: int) -> None:
        registry = Registry(path)
        for size in range(1, 21):
            registry.append(a_result(size, run=str(number)))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((int(r.run), r.context_length) for r in Registry(path).results()) == [
        (number, size) for number in range(4) for size in range(1, 21)
    ]
