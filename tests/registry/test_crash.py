"""Killed writers: every acknowledged result is in the registry, unchanged."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pytest_lmstrix.registry.store import Registry
from tests.registry import writer
from tests.registry.writer import numbered

KILLS = int(os.environ.get("LMSTRIX_TEST_KILLS", "500"))


def assert_nothing_is_lost(path: Path, acknowledged: list[tuple[int, int]]) -> None:
    registry = Registry(path)
    found: Counter[tuple[int, int]] = Counter()
    for result in registry.results():
        writer, number = int(result.run), result.context_length
        assert result == numbered(writer, number)
        found[writer, number] += 1
    assert set(found.values()) == {1}
    assert set(acknowledged) <= set(found)
    # Each writer may have been killed between its last write and its acknowledgement.
    assert len(found) - len(acknowledged) <= len({writer for writer, _ in found})
    loaded = registry.load()
    copies = b"".join(copy.read_bytes() for copy in path.parent.glob("*.corrupt-*"))
    for flaw in loaded.damaged:
        assert flaw.raw.startswith(b'{"schema":1,')
        assert flaw.raw in copies
    registry.append(numbered(0, 1))
    assert registry.load().results == len(found) + 1


def pairs(said: str) -> list[tuple[int, int]]:
    return [(int(writer), int(number)) for writer, number in map(str.split, said.splitlines())]


def test_killed_processes_lose_no_acknowledged_result(tmp_path: Path) -> None:
    path = tmp_path / "registry.jsonl"
    chance = random.Random(3)
    acknowledged = []
    for batch in range(5):
        writers = [
            subprocess.Popen(
                [sys.executable, writer.__file__, path, str(batch * 3 + place)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for place in range(3)
        ]
        for process in writers:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 20)):
                acknowledged += pairs(process.stdout.readline())
            process.kill()
            acknowledged += pairs(process.communicate()[0])
    assert_nothing_is_lost(path, acknowledged)


@pytest.mark.skipif(sys.platform == "win32", reason="cannot fork")
def test_hundreds_of_kills_lose_no_acknowledged_result(tmp_path: Path) -> None:
    path = tmp_path / "registry.jsonl"
    storm = subprocess.run(
        [sys.executable, writer.__file__, path, str(KILLS), "5"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    acknowledged = pairs(storm.stdout)
    assert len({writer for writer, _ in acknowledged}) > KILLS / 3
    assert_nothing_is_lost(path, acknowledged)
