"""What `--lmstrix-fit` costs: `python benchmarks/fit.py [FOLDER]`.

20 tiny models at 4 context lengths with 2 types of KV cache; the search of the largest context that
fits included. Compared with the start of a process that loads llama.cpp and ends.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import ROOT, run_pytest, seconds

sys.path.insert(0, str(ROOT))

from pytest_lmstrix.engines.llamacpp import child
from tests.standin.tiny_models import ARCHITECTURES, write_tiny_model

MODELS = 20
CONTEXTS = "512,1024,2048,4096"
STARTS = 7


def main() -> None:
    """Print the time of a first fit and of a second one from the cache, and their ratios."""
    with tempfile.TemporaryDirectory(dir=next(iter(sys.argv[1:]), None)) as name:
        folder = Path(name)
        _write_models(folder)
        start = statistics.median(seconds(_start_llama_cpp) for _ in range(STARTS))
        listing = statistics.median(
            seconds(lambda: run_pytest(folder, "--lmstrix-list")) for _ in range(3)
        )
        first = seconds(lambda: _fit(folder))
        estimates = _estimates(folder)
        cached = seconds(lambda: _fit(folder))
        assert _estimates(folder) == estimates
    bare = estimates * start
    print(f"bare start of llama.cpp: {start:.2f} s (median of {STARTS})")
    print(f"first fit: {first:.1f} s, {estimates} estimates; {first / bare:.2f} of as many starts")
    print(f"from the cache: {cached:.1f} s; {cached / first:.3f} of the first fit,"
          f" {cached / start:.1f} starts, {cached / listing:.2f} of `--lmstrix-list`")  # fmt: skip


def _write_models(folder: Path) -> None:
    entries = []
    for number in range(MODELS):
        architecture = list(ARCHITECTURES)[number % len(ARCHITECTURES)]
        # A name of its own makes each a file that no cached estimate is of.
        write_tiny_model(folder / f"{number}.gguf", architecture, general__name=f"model {number}")
        entries.append(f"  - {{id: model-{number}, engine: llamacpp, source: {number}.gguf}}\n")
    (folder / "models.yaml").write_text(f"models:\n{''.join(entries)}", encoding="utf-8")


def _estimates(folder: Path) -> int:
    cache = json.loads((folder / "reports" / "memory-estimates.json").read_bytes())
    return len(cache["estimates"])


def _start_llama_cpp() -> None:
    command = [sys.executable, "-P", child.__file__, "devices"]
    subprocess.run(command, input=b"\n", check=True, capture_output=True)


def _fit(folder: Path) -> None:
    run_pytest(folder, "--lmstrix-fit", f"--lmstrix-ctx={CONTEXTS}", "--lmstrix-format=json")


if __name__ == "__main__":
    main()
