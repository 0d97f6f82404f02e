"""A sweep against that of lmstrix: `python benchmarks/sweep.py PYTHON [MODELS] [ROUNDS]`.

`PYTHON` is that of an environment with lmstrix. Both list the models of one stand-in server, which
answers at once, and test each at one context length with the two questions; by turns, medians.
lmstrix waits 3 s between models.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import ROOT, numbers, run_pytest, took, user_environment

sys.path.insert(0, str(ROOT))

from tests.standin.lmstudio import StandInModel
from tests.standin.lmstudio.config import ServerConfig
from tests.standin.lmstudio.process import LmStudioProcess

CONTEXT = 4_096
PORT = 41_343
"""The first port at which the SDK, and so lmstrix, looks for a server."""


def main(python: str, models: int, rounds: int) -> None:
    """Print both times and their ratio."""
    made = tuple(StandInModel(key=f"model-{number}") for number in range(models))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LmStudioProcess(ServerConfig(models=made, port=PORT), folder) as server:
            sweep(folder / "project", server.host)  # compiles
            pairs = [
                (
                    took(lambda: sweep(folder / "project", server.host)),
                    took(lambda: sweep_with_lmstrix(python, folder / "home")),
                )
                for _ in range(rounds)
            ]
        loads = len(server.log().loads())
        assert loads == (2 * rounds + 1) * models, f"{loads} loads"
    print(f"{models} models at {CONTEXT:,} tokens, {rounds} rounds")
    for kind in ("clock", "processor"):
        times = [(getattr(ours, kind), getattr(theirs, kind)) for ours, theirs in pairs]
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(one / other for one, other in times)
        print(f"{kind}: this plugin {ours:.1f} s, lmstrix {theirs:.1f} s: {ratio:.2f} x")


def sweep(folder: Path, host: str) -> None:
    """List and test every model as a user of the plugin does, without results of before."""
    shutil.rmtree(folder, ignore_errors=True)
    run_pytest(folder, "--lmstrix-scan", f"--lmstrix-host={host}")
    run_pytest(folder, "--lmstrix", f"--lmstrix-host={host}", f"--lmstrix-ctx={CONTEXT}")


def sweep_with_lmstrix(python: str, home: Path) -> None:
    """The same as a user of lmstrix does."""
    shutil.rmtree(home, ignore_errors=True)
    (home / "lmstudio" / "models").mkdir(parents=True)
    (home / ".lmstudio-home-pointer").write_text(str(home / "lmstudio"), encoding="utf-8")
    for args in (["scan"], ["test", "--all", "--ctx", str(CONTEXT)]):
        done = subprocess.run(
            [python, "-m", "lmstrix", *args],
            cwd=home, env=user_environment() | {"HOME": str(home)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"lmstrix {' '.join(args)}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main(sys.argv[1], *numbers(sys.argv[2:], 40, 3))
