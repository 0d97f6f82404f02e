"""What `deep` prefills over a ladder: `python benchmarks/ladder.py [LARGEST]`.

SmolLM2-135M in llama.cpp, at four sizes up to LARGEST, by default 8,192 tokens, each twice the one
before. One fill of the largest costs its size; more are the controls, the questions, and what is
prefilled twice.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from measuring import numbers
from recording import run, write_project


def main(largest: int) -> None:
    """Print the loads, and the tokens prefilled against the largest size."""
    sizes = [largest // 8, largest // 4, largest // 2, largest]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, sizes)
        entries = run(folder, "deep")
    loads = sum(entry.load is not None for entry in entries)
    prefilled = sum(entry.prefilled for entry in entries)
    questions = len(entries) - loads
    print(f"sizes {', '.join(f'{size:,}' for size in sizes)}: {loads} load, {questions} requests")
    print(f"{prefilled:,} tokens prefilled: {prefilled / largest:.3f} x of the largest size,"
          f" {prefilled / sum(sizes):.2f} x of all sizes")  # fmt: skip


if __name__ == "__main__":
    main(*numbers(sys.argv[1:], 8_192))
