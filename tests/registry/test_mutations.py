"""Mutations of a registry's bytes: reading never raises and loses no intact line."""

from __future__ import annotations

import random
from io import BytesIO
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.registry.lines import Flaw, Scan, encode
from pytest_lmstrix.registry.store import Registry
from tests.registry.results import a_result

INPUTS = 10_000
LINES = [
    encode(a_result(size, "timeout" if size % 3 else "ok", model=f"m{size % 2}", detail='"\\\n{}'))
    for size in range(1, 9)
]


def scanned(data: bytes) -> tuple[list[Result], list[Flaw]]:
    results, flaws = [], []
    for item in Scan(BytesIO(data)):
        if isinstance(item, Result):
            results.append(item)
        else:
            flaws.append(item)
    return results, flaws


def mutated(data: bytearray, chance: random.Random) -> None:
    """Damage `data` as disks, editors and killed writers do."""
    start = chance.randrange(len(data))
    end = min(len(data), start + chance.choice((1, 1, 2, 30, 400)))
    match chance.randrange(6):
        case 0:
            data[start] ^= 1 << chance.randrange(8)
        case 1:
            del data[start:end]
        case 2:
            data[start:end] = bytes(end - start)
        case 3:
            data[start:start] = chance.randbytes(end - start)
        case 4:
            data[start:start] = data[max(0, start - 300) : start]
        case 5:
            del data[start:]
            data.append(0)


def test_no_mutation_raises_or_loses_an_intact_line() -> None:
    whole = {line: result for line in LINES for result in scanned(line)[0]}
    chance = random.Random(7)
    damage = 0
    for _ in range(INPUTS):
        data = bytearray(b"".join(LINES))
        for _ in range(chance.randrange(1, 4)):
            mutated(data, chance)
        results, flaws = scanned(bytes(data))
        damage += len(flaws)
        for raw in data.split(b"\n"):
            if (line := bytes(raw) + b"\n") in whole:
                assert whole[line] in results
        # Every line that is not blank is a result, or a flaw with all its bytes.
        lines = [line for line in bytes(data).split(b"\n") if line.strip()]
        assert len(results) + len(flaws) == len(lines)
        assert {flaw.raw.rstrip(b"\n") for flaw in flaws} <= set(lines)
    assert damage > INPUTS / 2


@settings(max_examples=500)
@given(st.lists(st.binary(max_size=60).map(lambda raw: raw + b"\n") | st.sampled_from(LINES)))
def test_arbitrary_lines_do_not_lose_intact_ones(parts: list[bytes]) -> None:
    results, flaws = scanned(b"".join(parts))
    assert [encode(result) for result in results] == [part for part in parts if part in LINES]
    assert {flaw.kind for flaw in flaws} <= {"damaged"}


def test_incremental_reading_equals_reading_at_once(tmp_path: Path) -> None:
    chance = random.Random(11)
    for number in range(30):
        data = bytearray(b"".join(LINES))
        for _ in range(3):
            mutated(data, chance)
        path = tmp_path / f"{number}.jsonl"
        path.touch()
        growing = Registry(path)
        for start in range(0, len(data), 200):
            with path.open("ab") as stream:
                stream.write(data[start : start + 200])
            growing.load()
        at_once = Registry(path).load()
        assert growing.load().damaged == at_once.damaged
        assert growing.load().torn == at_once.torn
        assert growing.statuses() == Registry(path).statuses()
        assert path.read_bytes() == data
        copies = b"".join(copy.read_bytes() for copy in tmp_path.glob(f"{number}.corrupt-*"))
        assert sorted(copies.split(b"\n")[:-1]) == sorted(
            {flaw.raw.removesuffix(b"\n") for flaw in at_once.damaged}
        )
