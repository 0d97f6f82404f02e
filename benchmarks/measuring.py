"""What the benchmarks share: projects, runs of pytest in their own processes, and times."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


def numbers(given: Sequence[str], *defaults: int) -> Iterator[int]:
    """Yield the numbers of a command line, those that are missing by default."""
    for place, default in enumerate(defaults):
        yield int(given[place]) if place < len(given) else default


class Took(NamedTuple):
    """What a piece of work took, in seconds."""

    clock: float
    processor: float
    """Of child processes that have ended; 0 on Windows."""


def took(work: Callable[[], object]) -> Took:
    """Do `work`, which starts processes, and return what it took."""
    before, started = os.times(), time.perf_counter()
    work()
    clock, after = time.perf_counter() - started, os.times()
    return Took(clock, sum(after[2:4]) - sum(before[2:4]))


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes by the clock."""
    return took(work).clock


def processor_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of `work` in this process: waiting for others is left out."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def user_environment() -> dict[str, str]:
    """Return the environment, in which Python keeps its bytecode as it does for users."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return environment | {"PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "pycache")}


def run_pytest(folder: Path, *args: str, check: bool = True) -> str:
    """Run pytest with this checkout's plugin in `folder`, and return its output.

    Raises:
        RuntimeError: `check`, and it does not pass.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Not hypothesis: its plugin is of these tests, not of a user's run.
    command = [sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", *args]
    environment = user_environment() | {
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "120",
        "PYTEST_LMSTRIX_LOCKS": str(folder / "locks"),
    }
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout[-2_000:]}{done.stderr[-2_000:]}")
    return done.stdout


def write_manifest(folder: Path, entries: Iterable[str], defaults: str = "") -> None:
    """Write `models.yaml` with `entries`, each in YAML's flow style."""
    folder.mkdir(parents=True, exist_ok=True)
    models = "".join(f"  - {entry}\n" for entry in entries)
    text = (f"defaults: {defaults}\n" if defaults else "") + f"models:\n{models}"
    (folder / "models.yaml").write_text(text, encoding="utf-8")
