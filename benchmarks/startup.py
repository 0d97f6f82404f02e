"""What a project pays for having the plugin installed: `python benchmarks/startup.py [RUNS]`.

Runs of an empty test with the plugin and with `-p no:lmstrix`, by turns, in a project that has a
models.yaml; medians of the wall times, and of their differences.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(folder: Path, *args: str) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models.yaml").write_text("models: [{id: a}]\n", encoding="utf-8")
        (folder / "test_one.py").write_text("def test_one(): pass\n", encoding="utf-8")
        seconds(folder), seconds(folder, "-p", "no:lmstrix")  # compiles, and fills caches
        pairs = [(seconds(folder), seconds(folder, "-p", "no:lmstrix")) for _ in range(runs)]
    installed = statistics.median(pair[0] for pair in pairs)
    without = statistics.median(pair[1] for pair in pairs)
    difference = statistics.median(pair[0] - pair[1] for pair in pairs)
    print(f"installed {installed:.3f} s, without {without:.3f} s, ratio {installed / without:.3f}")
    print(f"median difference {difference * 1000:.1f} ms over {runs} pairs of runs")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
