"""Full disks, missing permissions, and paths that are no regular file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_lmstrix.registry.store import Registry, RegistryError
from tests.registry.results import a_result


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
