"""What `--lmstrix-fit` costs: `python benchmarks/fit.py [FOLDER]`.

20 models at 4 context lengths with 2 types of KV cache, by the headers of Llamas of 1 to 70 billion
parameters; the search of the largest context that fits included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.standin.header_file import write_llama

MODELS = 20
CONTEXTS = "4096,8192,16384,32768"


def main() -> None:
    """Print what a first run takes, and a second one from the cache."""
    with tempfile.TemporaryDirectory(dir=next(iter(sys.argv[1:]), None)) as name:
        folder = Path(name)
        entries = []
        for number in range(MODELS):
            write_llama(folder / f"{number}.gguf", layers=16 + 3 * number,
                        width=2048 + 256 * number, inner=8192 + 1024 * number,
                        heads=16 + 2 * number, kv_heads=8 + number)  # fmt: skip
            entries.append(f"  - {{id: model-{number}, engine: llamacpp, source: {number}.gguf}}\n")
        (folder / "models.yaml").write_text(f"models:\n{''.join(entries)}", encoding="utf-8")
        for kind in ("first run", "from the cache"):
            print(f"{kind}: {_seconds(folder):.1f} s", flush=True)


def _seconds(folder: Path) -> float:
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "pytest", "--lmstrix-fit", f"--lmstrix-ctx={CONTEXTS}",
         "--lmstrix-format=json"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return time.monotonic() - started


if __name__ == "__main__":
    main()
