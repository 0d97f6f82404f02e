from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_lmstrix.registry.backups import backups, contents
from pytest_lmstrix.registry.lines import encode
from pytest_lmstrix.registry.store import Registry, RegistryError
from tests.registry.results import a_result


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "registry.jsonl")
    registry.append(a_result())
    return registry


def test_a_backup_holds_the_exact_bytes_and_is_named_by_its_time(registry: Registry) -> None:
    with registry.path.open("ab") as stream:
        stream.write(b"\0\xff damaged\r\n{torn")
    backup = registry.backup()
    assert backup is not None
    assert backup.parent == registry.path.parent / "backups"
    assert backup.match("registry-20[0-9][0-9][0-9][0-9][0-9][0-9]-*.jsonl")
    assert backup.read_bytes() == registry.path.read_bytes()


def test_the_ten_newest_backups_are_kept_and_other_files_untouched(registry: Registry) -> None:
    mine = registry.path.parent / "backups" / "registry-before-the-move.jsonl"
    mine.parent.mkdir()
    mine.write_text("mine")
    made = [registry.backup() for _ in range(13)]
    assert made == sorted(set(made), key=str)
    assert backups(registry.path) == made[-10:]
    assert mine.exists()


WRECKED = {"garbage": b"garbage\n", "emptied": b"", "another": encode(a_result(4096))}


@pytest.mark.parametrize("left", WRECKED.values(), ids=WRECKED)
def test_the_last_intact_backup_of_a_damaged_registry_is_kept(
    registry: Registry, left: bytes
) -> None:
    registry.append_many(a_result(size) for size in range(1, 302))
    for _ in range(12):
        registry.backup()
    sound = registry.path.read_bytes()
    registry.path.write_bytes(left)
    for size in range(1, 30):
        registry.backup()
        registry.append(a_result(size))
    kept = backups(registry.path)
    assert len(kept) == 11
    assert kept[0].read_bytes() == sound
    registry.restore(kept[0])
    assert registry.load().results == 302


def test_results_added_after_the_damage_are_kept_in_backups(registry: Registry) -> None:
    for number in range(40):
        if number == 15:
            damaged = registry.path.read_bytes().replace(b"passed", b"pa\0sed", 1)
            registry.path.write_bytes(damaged)
        elif number == 30:
            registry.path.write_bytes(b"garbage\n")
        registry.append(a_result(number + 1))
        registry.backup()
    first, second, *newest = backups(registry.path)
    assert len(newest) == 10
    assert [contents(first).results, contents(second).results] == [16, 30]
    assert contents(second).damaged == 1


def test_a_restored_backup_is_not_kept_beyond_the_ten_newest(registry: Registry) -> None:
    sound = registry.backup()
    registry.path.write_bytes(b"garbage\n")
    wrecked = registry.backup()
    registry.restore(sound)
    for _ in range(15):
        registry.backup()
    assert backups(registry.path)[0] == wrecked
    assert len(backups(registry.path)) == 11


def test_a_backup_that_cannot_be_pruned_is_ignored(registry: Registry) -> None:
    made = [backup for _ in range(10) if (backup := registry.backup())]
    made[1].unlink()
    made[1].mkdir()
    for _ in range(5):
        assert registry.backup() is not None
    assert made[1] in backups(registry.path)


def test_a_backup_of_a_newer_schema_can_be_restored(registry: Registry) -> None:
    registry.path.write_bytes(b'{"schema":2}\n')
    later = registry.backup()
    assert later is not None
    assert contents(later).intact
    registry.path.unlink()
    assert registry.restore().backup == later


def test_a_clock_set_back_does_not_prune_the_newest_backup(registry: Registry) -> None:
    folder = registry.path.parent / "backups"
    folder.mkdir()
    for number in range(10):
        (folder / f"registry-29991231-235959-99999{number}.jsonl").write_bytes(b"\n")
    backup = registry.backup()
    assert backup is not None
    assert backups(registry.path)[-1] == backup
    assert backup.read_bytes() == encode(a_result())


def test_each_registry_of_a_folder_has_its_own_backups(registry: Registry) -> None:
    other = Registry(registry.path.with_name("other.jsonl"))
    other.append(a_result(4096))
    mine, others = registry.backup(), other.backup()
    assert backups(registry.path) == [mine]
    assert backups(other.path) == [others]


def test_an_empty_registry_is_not_backed_up(registry: Registry) -> None:
    registry.path.write_bytes(b"")
    assert registry.backup() is None


def test_a_failed_backup_leaves_no_file(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(RegistryError, match=r"registry-.*\.jsonl: cannot be written"):
            registry.backup()
    assert list((registry.path.parent / "backups").iterdir()) == []
    assert registry.load().results == 1


class TestRestore:
    def test_restore_takes_the_newest_intact_backup_by_default(self, registry: Registry) -> None:
        good = registry.backup()
        registry.append(a_result(16384))
        with registry.path.open("ab") as stream:
            stream.write(b"damage\n")
        registry.backup()
        registry.path.write_bytes(b"\0" * 1000)
        registry.backup()
        restored = registry.restore()
        assert restored.backup == good
        assert restored.contents.intact
        assert restored.replaced is not None
        assert restored.replaced.match("registry.replaced-*.jsonl")
        assert restored.replaced.read_bytes() == b"\0" * 1000
        assert list(registry.results()) == [a_result()]

    def test_restore_falls_back_to_the_newest_backup_with_results(self, registry: Registry) -> None:
        with registry.path.open("ab") as stream:
            stream.write(b"damage\n")
        damaged = registry.backup()
        registry.path.write_bytes(b"\0")
        registry.backup()
        restored = registry.restore()
        assert restored.backup == damaged
        assert (restored.contents.results, restored.contents.damaged) == (1, 1)

    @pytest.mark.parametrize("as_path", [False, True], ids=["name", "path"])
    def test_restore_takes_the_named_backup(self, registry: Registry, as_path: bool) -> None:
        first = registry.backup()
        assert first is not None
        registry.append(a_result(16384))
        registry.backup()
        restored = registry.restore(first if as_path else first.name)
        assert restored.backup == first
        assert registry.verified_context("m") == 8192
        assert registry.load().results == 1

    def test_an_unknown_backup_name_lists_the_existing_ones(self, registry: Registry) -> None:
        backup = registry.backup()
        assert backup is not None
        with pytest.raises(
            RegistryError, match=f"tuesday: backup not found; available: .*{backup.name}"
        ):
            registry.restore("tuesday")

    def test_an_invalid_backup_name_is_an_error_naming_it(self, registry: Registry) -> None:
        with pytest.raises(RegistryError, match=r"x{300}: cannot be read: "):
            registry.restore("x" * 300)

    def test_a_backup_without_results_is_not_restored(self, registry: Registry) -> None:
        bad = registry.path.with_name("bad.jsonl")
        bad.write_bytes(b"\0\n")
        with pytest.raises(RegistryError, match="has no readable result"):
            registry.restore(bad)
        with pytest.raises(RegistryError, match="backups: has no readable backup"):
            registry.restore()
        assert registry.load().results == 1

    def test_restore_works_without_a_registry(self, registry: Registry) -> None:
        registry.backup()
        registry.path.unlink()
        assert registry.restore().replaced is None
        assert registry.load().results == 1

    def test_restore_replaces_a_folder_at_the_path(self, registry: Registry) -> None:
        registry.backup()
        registry.path.unlink()
        registry.path.mkdir()
        (registry.path / "mine").write_text("kept")
        replaced = registry.restore().replaced
        assert replaced is not None
        assert (replaced / "mine").read_text() == "kept"
        assert registry.load().results == 1

    def test_restore_keeps_the_backup(self, registry: Registry) -> None:
        backup = registry.backup()
        registry.restore()
        registry.append(a_result(16384))
        assert backups(registry.path) == [backup]
        assert backup is not None
        assert backup.read_bytes() == encode(a_result())

    def test_a_full_disk_leaves_the_registry_unchanged(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry.backup()
        registry.append(a_result(16384))
        before = sorted(registry.path.parent.iterdir())

        def fail(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(RegistryError):
                registry.restore()
        assert sorted(registry.path.parent.iterdir()) == before
        assert registry.load().results == 2


def test_an_interrupted_restore_leaves_the_registry_unchanged(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.backup()
    registry.append(a_result(4096))
    before = registry.path.read_bytes()

    def killed(self: Path, target: Path) -> Path:
        if target == registry.path:
            raise KeyboardInterrupt
        return rename(self, target)

    rename = Path.rename
    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        registry.restore()
    assert registry.path.read_bytes() == before


def test_restore_works_on_a_disk_without_hard_links(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.backup()
    registry.append(a_result(4096))

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    restored = registry.restore()
    assert registry.load().results == 1
    assert restored.replaced is not None
    assert len(restored.replaced.read_bytes().splitlines()) == 2
