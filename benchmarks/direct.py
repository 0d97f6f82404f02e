"""A run on real llama.cpp against its loads and requests alone: `python benchmarks/direct.py [N]`.

N rounds, by default 3, of `full` at three sizes and `deep` over them, with SmolLM2-135M. A run is
recorded; then its loads and requests are sent to llama.cpp by a program that does nothing else. By
turns, medians of the ratios; by the clock and in processor time, of all processes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import ROOT, numbers, took, user_environment

sys.path.insert(0, str(ROOT))

SIZES = (1_024, 2_048, 4_096)
CHECKS = "full or deep"


def main(rounds: int) -> None:
    """Print both times and their ratio."""
    from recording import RECORD, run, write_project

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, SIZES)
        pairs = []
        for _ in range(rounds):
            ours = took(lambda: run(folder, CHECKS))
            command = [sys.executable, __file__, "--replay", str(folder / RECORD)]
            alone = took(lambda: subprocess.run(command, check=True, env=user_environment()))  # noqa: B023
            pairs.append((ours, alone))
    for kind in ("clock", "processor"):
        times = [(getattr(ours, kind), getattr(alone, kind)) for ours, alone in pairs]
        ours, alone = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(one / other for one, other in times)
        print(f"{kind}: {ours:.1f} s, its loads and requests alone {alone:.1f} s: {ratio:.3f} x")


def replay(record: Path) -> None:
    """Send what was recorded, and nothing else."""
    import httpx
    from recording import read

    from pytest_lmstrix.engines.llamacpp import child as program
    from pytest_lmstrix.system.child_process import Child

    child = client = None
    for entry in read(record):
        if entry.load is not None:
            if child is not None:
                child.end()
            data = json.dumps(entry.load).encode() + b"\n"
            child = Child([sys.executable, "-P", program.__file__], data)
            line = child.lines.get(timeout=600)
            assert line
            headers = {"Authorization": f"Bearer {entry.load['api_key']}"}
            address = json.loads(line)["address"]
            client = httpx.Client(base_url=address, headers=headers, timeout=600, trust_env=False)
            continue
        assert client is not None
        body = {**entry.body, "stream": True, "cache_prompt": True}
        with client.stream("POST", entry.url, json=body) as response:
            for _ in response.iter_bytes():
                pass
    assert child is not None
    child.end()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--replay"]:
        replay(Path(sys.argv[2]))
    else:
        main(*numbers(sys.argv[1:], 3))
