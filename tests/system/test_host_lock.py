"""Host locks: mutual exclusion per host, and detection of dead owners."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.system import host_lock as locks
from pytest_lmstrix.system.host_lock import host_lock
from pytest_lmstrix.system.owners import owner_is_dead, owner_token

HOST = "localhost:1234"
HOLD = """
import sys
from pytest_lmstrix.system.host_lock import host_lock
slots, take = map(int, sys.argv[2:] or (1, 1))
with host_lock(sys.argv[1], slots=slots, take=take):
    print("held", flush=True)
    sys.stdin.read()
print("released", flush=True)
"""
SAY_OWNER = """
import sys
from pytest_lmstrix.system.owners import owner_token
print(owner_token(), flush=True)
sys.stdin.read()
"""
Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def lock_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "locks"
    monkeypatch.setenv(locks.FOLDER_VARIABLE, str(folder))
    return folder


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts a Python program that runs until its standard input ends, and reads its output."""
    with contextlib.ExitStack() as stack:

        def start(program: str, *arguments: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", program, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_free(host: str = HOST) -> bool:
    try:
        with host_lock(host, timeout=0):
            return True
    except TimeoutError:
        return False


def test_the_lock_excludes_another_process_until_released(spawn: Spawn) -> None:
    process = spawn(HOLD, HOST)
    assert line_of(process) == "held"
    assert not is_free()
    assert is_free("otherhost:1234")
    assert process.stdin is not None
    process.stdin.close()
    assert line_of(process) == "released"
    assert is_free()


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_dying_process_releases_the_lock(spawn: Spawn, end: str) -> None:
    process = spawn(HOLD, HOST)
    assert line_of(process) == "held"
    getattr(process, end)()
    process.wait()
    assert is_free()


def test_a_waiter_sees_the_holder_and_gets_the_lock_when_it_dies(spawn: Spawn) -> None:
    process = spawn(HOLD, HOST)
    assert line_of(process) == "held"
    holders: list[str] = []

    def on_wait(holder: str) -> None:
        holders.append(holder)
        process.kill()
        process.wait()

    with host_lock(HOST, on_wait=on_wait, timeout=60):
        assert not is_free()
    assert len(holders) == 1
    assert f"pid {process.pid} " in holders[0]


def test_a_worker_names_itself_and_its_parent_as_holder(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    process = spawn(HOLD, HOST)  # by `-c`, like the workers of xdist
    assert line_of(process) == "held"
    shown = rf"pid {process.pid} of .*: worker gw3 of pytest-xdist, started by pid {os.getpid()}$"
    with pytest.raises(TimeoutError, match=shown), host_lock(HOST, timeout=0):
        pytest.fail("two at once")


def test_no_waiting_message_without_waiting() -> None:
    with host_lock(HOST, on_wait=lambda holder: pytest.fail(holder)):
        pass


def test_a_timeout_names_host_and_holder() -> None:
    with host_lock(HOST), pytest.raises(TimeoutError, match=rf"{HOST}.*pid {os.getpid()} "):  # noqa: SIM117
        with host_lock(HOST, timeout=0):
            pytest.fail("two at once")


def test_the_lock_is_released_after_an_error_and_from_another_thread() -> None:
    with pytest.raises(KeyboardInterrupt), host_lock(HOST):
        raise KeyboardInterrupt
    assert is_free()
    held = host_lock(HOST)
    held.__enter__()
    thread = threading.Thread(target=held.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert is_free()


def slots_left(slots: int, take: int = 1) -> bool:
    try:
        with host_lock(HOST, slots=slots, take=take, timeout=0):
            return True
    except TimeoutError:
        return False


def test_each_slot_is_held_once_and_all_may_be_taken() -> None:
    with host_lock(HOST, slots=3):
        assert not is_free(), "to those that know of one slot"
        assert slots_left(3, take=2)
        assert not slots_left(3, take=3)
        with host_lock(HOST, slots=3, take=2):
            assert not slots_left(3)
        assert slots_left(3, take=2), "given back"
    with host_lock(HOST, slots=2, take=9):
        assert not slots_left(2)
    assert slots_left(2, take=2)


def test_who_collects_slots_is_not_overtaken(spawn: Spawn) -> None:
    with host_lock(HOST, slots=2):
        process = spawn(HOLD, HOST, "2", "2")
        deadline = time.monotonic() + 60
        while slots_left(2):  # until the process has the other slot, and waits for this one
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert line_of(process) == "held"


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "127.0.0.1", "127.0.0.1:1234", "::1", "[::1]:1234", "127.1.2.3",
     "http://localhost:1234/", "::ffff:127.0.0.1", "0.0.0.0"],
)  # fmt: skip
def test_names_of_one_host_share_a_lock(host: str) -> None:
    with host_lock(HOST):
        assert not is_free(host)


@pytest.mark.parametrize("host", ["localhost:1235", "192.168.0.7", "box", "llamacpp", "fe80::2"])
def test_different_hosts_have_different_locks(host: str) -> None:
    with host_lock(HOST):
        assert is_free(host)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_any_host_name_gives_a_valid_file_name(host: str) -> None:
    assert is_free(host)


@pytest.mark.skipif(os.name == "nt", reason="each user has locks of their own on Windows")
def test_all_users_can_lock_and_none_can_delete(lock_folder: Path) -> None:
    mask = os.umask(0o077)
    try:
        assert is_free()
    finally:
        os.umask(mask)
    assert lock_folder.stat().st_mode & 0o7777 == 0o1777
    files = list(lock_folder.iterdir())
    assert {file.suffix for file in files} == {".lock", ".holder"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o666}


@pytest.mark.skipif(
    sys.platform == "win32" or os.getuid() != 0, reason="only root can act as two users"
)
def test_two_users_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = f"import os; os.setuid(65534); os.execv({sys.executable!r}, "
    runs = f"{setting}['python', '-c', 'import filelock, pytest_lmstrix.system.host_lock'])"
    if subprocess.run([sys.executable, "-c", runs], capture_output=True).returncode:
        pytest.skip("another user cannot run this interpreter")
    # Not in pytest's temporary folders, which only their owner can enter.
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o711)
        monkeypatch.setenv(locks.FOLDER_VARIABLE, f"{open_to_all}/locks")
        assert is_free()  # the files now belong to root
        program = f"import os, pytest_lmstrix.system.host_lock; os.setuid(65534){HOLD}"
        with subprocess.Popen(
            [sys.executable, "-c", program, HOST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert line_of(process) == "held"
            assert not is_free()
            process.kill()
        assert is_free()


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_planted_symlinks_are_refused(lock_folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    assert is_free()
    for file in list(lock_folder.iterdir()):
        file.unlink()
        file.symlink_to(victim)
    lock_file = next(lock_folder.glob("*.lock"))
    with pytest.raises(OSError, match="symbolic link") as refused:
        is_free()
    assert refused.value.filename == str(lock_file), "the user can see what to remove"
    lock_file.unlink()
    assert is_free()
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
@pytest.mark.parametrize("exists", [True, False])
def test_the_lock_library_itself_refuses_links(tmp_path: Path, exists: bool) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    if exists:
        target.write_text("precious")
    link.symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        FileLock(link, mode=0o666, thread_local=False).acquire(timeout=0)
    assert link.is_symlink()
    assert target.exists() is exists


def test_a_planted_folder_is_refused(lock_folder: Path) -> None:
    lock_folder.write_text("a file")
    with pytest.raises(NotADirectoryError, match="locks"):
        is_free()


def test_holder_text_of_other_users_is_sanitized(lock_folder: Path) -> None:
    with host_lock(HOST):
        next(lock_folder.glob("*.holder")).write_bytes(
            b"\x1b]0;owned\x07evil\n\xff" + b"x" * 10_000
        )
        with pytest.raises(TimeoutError) as caught:  # noqa: SIM117
            with host_lock(HOST, timeout=0):
                pytest.fail("two at once")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_running_owner_is_not_dead(spawn: Spawn) -> None:
    assert owner_token() == owner_token()
    assert not owner_is_dead(owner_token())
    process = spawn(SAY_OWNER)
    token = line_of(process)
    assert token != owner_token()
    assert not owner_is_dead(token)
    process.kill()
    if sys.platform == "linux":
        # A zombie: dead, although its entry remains until its parent fetches the exit status.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert owner_is_dead(token)
    process.wait()
    assert owner_is_dead(token)


def test_a_reused_process_id_is_another_process() -> None:
    machine, pid, started = owner_token().split("-")
    assert owner_is_dead(f"{machine}-{pid}-{int(started, 16) - 1:x}")


def test_owners_on_other_machines_are_not_dead() -> None:
    _, pid, started = owner_token().split("-")
    assert not owner_is_dead(f"{'0' * 12}-{pid}-{int(started, 16) - 1:x}")
    assert not owner_is_dead(f"{'0' * 12}-7ffffff0-1")


@given(st.text(max_size=60))
def test_an_invalid_token_is_not_a_dead_owner(token: str) -> None:
    assert not owner_is_dead(token)


def test_an_impossible_process_id_is_not_a_dead_owner() -> None:
    assert not owner_is_dead(f"{owner_token().split('-')[0]}-ffffffff-1")


def test_a_token_fits_in_an_identifier() -> None:
    assert len(owner_token()) <= 40
    assert set(owner_token()) <= set("0123456789abcdef-")
