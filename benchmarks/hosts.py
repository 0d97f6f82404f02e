"""Eight hosts, 64 models of mixed cost: `python benchmarks/hosts.py [SECONDS] [SEED]`.

A run with `-n auto` on stand-ins of LM Studio whose loads take as long as drawn, SECONDS (by
default 20) in the middle. The plugin knows nothing but the sizes of the files: the loads take 0.5
to 2 times what these suggest. The bound is the mean load of the hosts, or the longest model; the
makespan is from the first load to the last unload.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from measuring import ROOT, numbers, run_pytest, took

sys.path.insert(0, str(ROOT))

from pytest_lmstrix.plan.assignment import Job, lower_bound
from pytest_lmstrix.plan.durations import LOAD_BYTES_PER_SECOND
from tests.standin.lmstudio import Fault, LmStudioServer, StandInModel

MODELS, HOSTS = 64, 8


def main(seconds: int, seed: int) -> None:
    """Print the makespan against the bound."""
    rng = random.Random(seed)
    expected = {f"model-{n:02}": rng.lognormvariate(math.log(seconds), 0.8) for n in range(MODELS)}
    real = {key: each * rng.uniform(0.5, 2) for key, each in expected.items()}
    models = [
        StandInModel(key=key, size_bytes=int(each * LOAD_BYTES_PER_SECOND))
        for key, each in expected.items()
    ]
    faults = [
        Fault(where="load", kind="slow", seconds=each, model=key) for key, each in real.items()
    ]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        servers = [stack.enter_context(LmStudioServer(models, faults=faults)) for _ in range(HOSTS)]
        folder, named = Path(name), [f"--lmstrix-host={server.host}" for server in servers]
        run_pytest(folder, "--lmstrix-scan", *named)
        args = ("--lmstrix", "-n", "auto", "--lmstrix-ctx=4096", *named)
        spent = took(lambda: run_pytest(folder, *args))
        changes = [
            change for server in servers for change in server.changes if change.why == "unload"
        ]
        loads = [load for server in servers for load in server.loads()]
    assert sorted(load.model_key or "" for load in loads) == sorted(real)
    makespan = max(change.time for change in changes) - min(load.time for load in loads)
    bound = lower_bound([Job(model=key, seconds=each) for key, each in real.items()], HOSTS)
    print(
        f"{MODELS} models, {HOSTS} hosts, {sum(real.values()):.0f} s of loads; bound {bound:.1f} s"
    )
    print(f"makespan {makespan:.1f} s: {makespan / bound:.3f} x of the bound")
    print(f"the whole command {spent.clock:.1f} s")


if __name__ == "__main__":
    main(*numbers(sys.argv[1:], 20, 0))
