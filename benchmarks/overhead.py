"""What a case costs beside the server's own time: `python benchmarks/overhead.py [CASES] [ROUNDS]`.

Cases of `full`, each with a load, two questions and an unload, on a stand-in LM Studio that answers
at once. A case is from its load to the next one: reports and the registry are in it. The server's
own time in it is from the arrival of each request to its answer. Medians by the clock; and the
processor time of pytest, which other work hardly changes: the difference between a run with many
cases and one with few.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from measuring import ROOT, numbers, run_pytest, took

sys.path.insert(0, str(ROOT))

from tests.standin.lmstudio import Call, StandInModel
from tests.standin.lmstudio.config import ServerConfig
from tests.standin.lmstudio.process import LmStudioProcess

FEW = 5


def main(cases: int, rounds: int) -> None:
    """Print what a case costs."""
    took_cases: list[tuple[float, float]] = []
    processor = []
    with tempfile.TemporaryDirectory() as name:
        for turn in range(rounds):
            few, _ = run(Path(name) / f"{turn}-few", FEW)
            many, calls = run(Path(name) / f"{turn}-many", FEW + cases)
            processor.append((many - few) / cases)
            took_cases += cases_of(calls)
    clock, server = (statistics.median(column) for column in zip(*took_cases, strict=True))
    beside = statistics.median(clock - server for clock, server in took_cases)
    print(f"{len(took_cases)} cases, {rounds} rounds; milliseconds a case, medians")
    print(f"by the clock {clock * 1e3:.1f}, of them the server's own {server * 1e3:.1f},"
          f" beside it {beside * 1e3:.1f}")  # fmt: skip
    print(f"processor time of pytest {statistics.median(processor) * 1e3:.1f}")


def run(folder: Path, cases: int) -> tuple[float, list[Call]]:
    """Test as many models once; return the processor time and the calls."""
    folder.mkdir()
    made = tuple(StandInModel(key=f"model-{number}") for number in range(cases))
    with LmStudioProcess(ServerConfig(models=made), folder) as server:
        run_pytest(folder, "--lmstrix-scan", f"--lmstrix-host={server.host}")
        args = ("--lmstrix", f"--lmstrix-host={server.host}", "--lmstrix-ctx=4096")
        spent = took(lambda: run_pytest(folder, *args))
    return spent.processor, server.log().calls


def cases_of(calls: Iterable[Call]) -> Iterator[tuple[float, float]]:
    """Yield the seconds of each case but the last, and those that are the server's own."""
    calls = list(calls)
    starts = [number for number, call in enumerate(calls) if call.endpoint == "loadModel"]
    for first, following in pairwise(starts):
        own = sum(call.seconds for call in calls[first:following])
        yield calls[following].time - calls[first].time, own


if __name__ == "__main__":
    main(*numbers(sys.argv[1:], 60, 3))
