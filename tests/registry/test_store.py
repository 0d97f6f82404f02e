from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import filelock
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH, Result
from pytest_lmstrix.registry import files, lines
from pytest_lmstrix.registry.fold import Fold
from pytest_lmstrix.registry.health import check_health
from pytest_lmstrix.registry.lines import decode, encode
from pytest_lmstrix.registry.store import Registry, RegistryError
from tests.registry.results import a_result


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reports" / "registry.jsonl"


def written(path: Path, *lines: bytes) -> Registry:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(lines))
    return Registry(path)


def corrupt_files(path: Path) -> list[Path]:
    return sorted(path.parent.glob("registry.corrupt-*.jsonl"))


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


def test_a_time_out_of_range_in_utc_is_damage(path: Path) -> None:
    line = encode(a_result()).replace(b"2026-03-01T12:00:00Z", b"0001-01-01T00:00:00+14:00")
    loaded = written(path, line, encode(a_result())).load()
    assert (loaded.results, [flaw.line for flaw in loaded.damaged]) == (1, [1])


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


class TestFullDisk:
    @pytest.fixture
    def registry(self, path: Path) -> Registry:
        registry = Registry(path)
        registry.append(a_result())
        return registry

    @pytest.mark.parametrize("taken", [0, 1, 60])
    def test_a_partly_written_line_is_truncated(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch, taken: int
    ) -> None:
        before = registry.path.read_bytes()
        write = os.write
        room = taken

        def full(descriptor: int, data: bytes) -> int:
            nonlocal room
            if not room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done = write(descriptor, data[:room])
            room = 0
            return done

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(RegistryError, match=r"registry\.jsonl: .*could not be written"):
                registry.append(a_result(16384))
        assert registry.path.read_bytes() == before
        registry.append(a_result(4096))
        assert registry.load().results == 2

    def test_a_partial_line_that_cannot_be_truncated_loses_no_other(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = os.write
        parts = [30]

        def full(descriptor: int, data: bytes) -> int:
            if not parts:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, data[: parts.pop()])

        def refuse(descriptor: int, length: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            patch.setattr(os, "ftruncate", refuse)
            with pytest.raises(RegistryError):
                registry.append(a_result(16384))
        registry.append(a_result(4096))
        loaded = registry.load()
        assert loaded.results == 2
        assert [flaw.line for flaw in loaded.damaged] == [2]

    def test_a_failed_sync_is_an_error(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(RegistryError):
                registry.append(a_result(16384))
        assert registry.load().results == 1

    @pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size to set")
    def test_a_file_size_limit_is_an_error_without_loss(self, registry: Registry) -> None:
        code = (
            "import resource, signal, sys;"
            "from pytest_lmstrix.registry.store import Registry, RegistryError;"
            "registry = Registry(sys.argv[1]);"
            "result = next(registry.results());"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
            "[registry.append(result) for _ in iter(lambda: print('kept', flush=True), 1)]"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code, registry.path], capture_output=True, text=True, check=False
        )
        assert "RegistryError" in ended.stderr
        assert "File too large" in ended.stderr
        # One existed before; "kept" is printed before each attempt, including the failed one.
        assert registry.load().results == ended.stdout.count("kept") > 2
        assert registry.load().torn is None


@pytest.mark.parametrize("use", ["load", "append", "results", "backup"])
def test_a_folder_as_registry_is_an_error_naming_it(path: Path, use: str) -> None:
    path.mkdir(parents=True)
    registry = Registry(path)
    uses: dict[str, Callable[[], object]] = {
        "load": registry.load,
        "append": lambda: registry.append(a_result()),
        "results": lambda: list(registry.results()),
        "backup": registry.backup,
    }
    with pytest.raises(RegistryError, match=r"registry\.jsonl: is not a file; move it away"):
        uses[use]()


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders")
def test_a_named_pipe_does_not_block(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    for use in (Registry(path).load, lambda: Registry(path).append(a_result())):
        with pytest.raises(RegistryError, match="is not a file"):
            use()


def test_a_file_as_registry_folder_is_an_error_naming_it(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("mine")
    with pytest.raises(RegistryError, match="reports"):
        Registry(tmp_path / "reports" / "registry.jsonl").append(a_result())


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind this user"
)
def test_missing_permission_is_an_error_naming_the_file(path: Path) -> None:
    registry = Registry(path)
    registry.append(a_result())
    path.chmod(0)
    with pytest.raises(RegistryError, match=r"registry\.jsonl: cannot be read"):
        Registry(path).load()
    with pytest.raises(RegistryError, match=r"registry\.jsonl: cannot be written"):
        registry.append(a_result())


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
