"""What `--lmstrix-list` costs for many models: `python benchmarks/listing.py [FOLDER]`.

The registry holds the results of one sweep: every model at the seven sizes of its ladder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from registry import MODELS, SIZES, line

from pytest_lmstrix.registry.lines import encode


def main() -> None:
    """Print what each form takes, the start of Python and pytest included."""
    with tempfile.TemporaryDirectory(dir=next(iter(sys.argv[1:]), None)) as name:
        folder = Path(name)
        results = [line(number) for number in range(MODELS * len(SIZES))]
        entries = "".join(
            f"  - id: {model}\n    context_limit: 131072\n    size_bytes: 2019377696\n"
            for model in dict.fromkeys(result.model for result in results)
        )
        (folder / "models.yaml").write_text(f"models:\n{entries}", encoding="utf-8")
        (folder / "reports").mkdir()
        (folder / "reports" / "registry.jsonl").write_bytes(b"".join(map(encode, results)))
        print(f"{MODELS:,} models, {len(results):,} results")
        for args in (["--version"], ["--lmstrix-list"], ["--lmstrix-list=tpsd", "-q"],
                     ["--lmstrix-list", "--lmstrix-format=json"], ["--lmstrix-list", "-v"],
                     ["--lmstrix-health"]):  # fmt: skip
            before = os.times()
            command = [sys.executable, "-m", "pytest", *args]
            done = subprocess.run(command, cwd=folder, check=True, capture_output=True,
                                  env={**os.environ, "COLUMNS": "120"})  # fmt: skip
            after = os.times()
            took = after.elapsed - before.elapsed
            processor = sum(after[2:4]) - sum(before[2:4])  # of children; 0 on Windows
            lines = len(done.stdout.splitlines())
            print(f"{' '.join(args)}: {took:.2f} s, processor {processor:.2f} s, {lines:,} lines")


if __name__ == "__main__":
    main()
