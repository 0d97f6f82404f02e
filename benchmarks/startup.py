"""What a project pays for having the plugin installed: `python benchmarks/startup.py [RUNS]`.

Runs of an empty test with the plugin and with `-p no:lmstrix`, by turns, in a project that has a
models.yaml; medians of the times, and of their differences, by the clock and of the processor.
Python may write bytecode, as it does where a plugin is installed. Not for Windows.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage


def seconds(folder: Path, *args: str) -> tuple[float, float]:
    """Return the seconds of a run: by the clock, and of the processor."""
    started, before = time.perf_counter(), getrusage(RUSAGE_CHILDREN)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        *args,
    ]
    bytecode = {"PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(
        command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **bytecode}
    )
    after = getrusage(RUSAGE_CHILDREN)
    processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - started, processor


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models.yaml").write_text("models: [{id: a}]\n", encoding="utf-8")
        (folder / "test_one.py").write_text("def test_one(): pass\n", encoding="utf-8")
        seconds(folder), seconds(folder, "-p", "no:lmstrix")  # compiles, and fills caches
        pairs = [(seconds(folder), seconds(folder, "-p", "no:lmstrix")) for _ in range(runs)]
    for number, clock in enumerate(("by the clock", "of the processor")):
        installed = statistics.median(pair[0][number] for pair in pairs)
        without = statistics.median(pair[1][number] for pair in pairs)
        difference = statistics.median(pair[0][number] - pair[1][number] for pair in pairs)
        print(
            f"{clock}: installed {installed:.3f} s, without {without:.3f} s,"
            f" median difference {difference * 1000:.1f} ms over {runs} pairs of runs"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
