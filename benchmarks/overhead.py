"""What a case costs beside the server's own time: `python benchmarks/overhead.py [CASES] [ROUNDS]`.

Cases of `full`, each with a load, two questions and an unload, on a stand-in LM Studio that answers
at once. The cost of a case is the difference between a run with many cases and one with few: the
start of pytest is in both. The server's own time is from the arrival of each request to its answer.
By turns, medians; by the clock, and the processor time of pytest, which other work does not change.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from measuring import ROOT, numbers, run_pytest, took

sys.path.insert(0, str(ROOT))

from tests.standin.lmstudio import StandInModel
from tests.standin.lmstudio.config import ServerConfig
from tests.standin.lmstudio.process import LmStudioProcess

FEW = 5


class Cost(NamedTuple):
    """Of a run, or of a case; seconds."""

    clock: float
    processor: float
    server: float
    """The part of `clock` that is the server's own."""


def main(cases: int, rounds: int) -> None:
    """Print what a case costs."""
    with tempfile.TemporaryDirectory() as name:
        costs = []
        for turn in range(rounds):
            many, few = (run(Path(name) / f"{turn}-{n}", n) for n in (FEW + cases, FEW))
            costs.append(Cost(*((a - b) / cases for a, b in zip(many, few, strict=True))))
    clock = statistics.median(cost.clock for cost in costs) * 1_000
    server = statistics.median(cost.server for cost in costs) * 1_000
    beside = statistics.median(cost.clock - cost.server for cost in costs) * 1_000
    processor = statistics.median(cost.processor for cost in costs) * 1_000
    print(f"{cases} cases, {rounds} rounds; milliseconds a case")
    print(f"by the clock {clock:.1f}, the server's own {server:.1f}, beside it {beside:.1f}")
    print(f"processor time of pytest {processor:.1f}")


def run(folder: Path, cases: int) -> Cost:
    """Test as many models once."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    made = tuple(StandInModel(key=f"model-{number}") for number in range(cases))
    with LmStudioProcess(ServerConfig(models=made), folder) as server:
        run_pytest(folder, "--lmstrix-scan", f"--lmstrix-host={server.host}")
        args = ("--lmstrix", f"--lmstrix-host={server.host}", "--lmstrix-ctx=4096")
        spent = took(lambda: run_pytest(folder, *args))
    calls = server.log().calls
    assert sum(call.endpoint == "loadModel" for call in calls) == cases
    return Cost(spent.clock, spent.processor, sum(call.seconds for call in calls))


if __name__ == "__main__":
    main(*numbers(sys.argv[1:], 60, 3))
