"""Writers that get killed: `PATH WRITER` runs one, `PATH KILLS SEED` forks and kills many.

A writer appends in a loop, and prints `WRITER NUMBER` for each acknowledged result.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from datetime import UTC, datetime

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.store import Registry

AT_ONCE = 3


def numbered(writer: int, number: int) -> Result:
    """Return result `number` of `writer`; some are long enough to be torn by a kill."""
    length = 300_000 if (writer + number) % 7 == 0 else 100
    return Result(
        run=str(writer),
        at=datetime(2026, 1, 1, tzinfo=UTC),
        model="m",
        engine="lmstudio",
        check="full",
        context_length=number,
        verdict=Verdict.OK,
        outcome="passed",
        detail=f"{writer}-{number} " * (length // 10),
    )


def write(path: str, writer: int) -> None:
    """Append until killed, or until the output pipe is closed."""
    registry = Registry(path)
    for number in range(1, 10_000):
        registry.append(numbered(writer, number))
        os.write(1, b"%d %d\n" % (writer, number))


def kill_many(path: str, kills: int, seed: int) -> None:
    """Keep several writers running, and kill one after another."""
    if sys.platform == "win32":
        raise NotImplementedError
    chance = random.Random(seed)
    alive: list[int] = []
    for writer in range(kills + AT_ONCE):
        child = os.fork()
        if not child:
            write(path, writer)
            os._exit(0)
        alive.append(child)
        if len(alive) > AT_ONCE or writer >= kills:
            time.sleep(chance.random() * 0.02)
            victim = alive.pop(chance.randrange(len(alive)))
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
    for child in alive:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    path, *numbers = sys.argv[1:]
    (write if len(numbers) == 1 else kill_many)(path, *map(int, numbers))
