"""What 10,000 models at 8 sizes take before the first test: `python benchmarks/collection.py [N]`.

Beside a module with as many parametrized tests of the same ids, N times by turns; no engine is
contacted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from pytest_lmstrix.hooks.xdist.worker import pack_plan, unpack_plan
from pytest_lmstrix.manifest.read import read_manifest
from pytest_lmstrix.plan.plan import Plan, planned

MODELS = 10_000
SIZES = (4_096, 8_192, 16_384, 32_768, 65_536, 98_304, 120_000, 131_071)
PLAIN = """
import json
from pathlib import Path
import pytest

IDS = json.loads(Path(__file__).with_name("ids.json").read_text())

@pytest.mark.parametrize("case", IDS, ids=IDS)
def test_full(case): pass
"""
CONFTEST = """
import pytest

def pytest_runtest_logstart(): pytest.exit("the first test", 0)
"""
COLLECT = ("--collect-only", "-q")
OURS = ("--lmstrix", "models.yaml")


class Took(NamedTuple):
    """Seconds of a run: by the clock, and of the processor."""

    wall: float
    processor: float


def manifest() -> str:
    entries = "".join(
        f"  - id: publisher-{number % 100:02}/model-{number:05}-7b-instruct\n"
        f"    context_limit: 131072\n    size_bytes: {1_000_000_000 + number * 987_653}\n"
        f"    url: http://127.0.0.1:{9 + number % 2}\n"
        for number in range(MODELS)
    )
    return f"defaults: {{engine: openai, contexts: {list(SIZES)}}}\nmodels:\n{entries}"


def took(folder: Path, *args: str) -> Took:
    before = os.times()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        *args,
    ]
    bytecode = {
        "PYTHONPYCACHEPREFIX": str(folder.parent / "bytecode"),
        "PYTHONDONTWRITEBYTECODE": "",
    }
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, **bytecode}
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    after = os.times()
    return Took(after.elapsed - before.elapsed, sum(after[2:4]) - sum(before[2:4]))


def compare(title: str, one: list[Took], other: list[Took]) -> None:
    """Print the medians of both, and of the ratios of the pairs, by the clock and the processor."""
    words = []
    for field in Took._fields:
        pairs = [(getattr(a, field), getattr(b, field)) for a, b in zip(one, other, strict=True)]
        first, second = (statistics.median(each) for each in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        more = statistics.median(a - b for a, b in pairs)
        words.append(f"{field} {first:.2f} s / {second:.2f} s = {ratio:.2f}, {more:+.2f} s")
    print(f"{title}: {'; '.join(words)}", flush=True)


def measure(folder: Path, rounds: int) -> None:
    ours, plain = folder / "ours", folder / "plain"
    runs = {
        "ours": (ours, *OURS, *COLLECT),
        "plain": (plain, "-p", "no:lmstrix", *COLLECT),
        "ours -k": (ours, *OURS, *COLLECT, "-k", "model-00042 or 65536"),
        "plain -k": (plain, "-p", "no:lmstrix", *COLLECT, "-k", "model-00042 or 65536"),
        "first": (ours, *OURS),
        "plain first": (plain, "-p", "no:lmstrix"),
        "first -n 2": (ours, *OURS, "-n", "2"),
        "plain first -n 2": (plain, "-p", "no:lmstrix", "-n", "2"),
    }
    times: dict[str, list[Took]] = {name: [] for name in runs}
    for where, *args in (runs["ours"], runs["plain"]):  # compiles, and fills caches
        took(where, *args)
    for _ in range(rounds):
        for name, (where, *args) in runs.items():
            times[name].append(took(where, *args))
            print(name, *(f"{value:.2f} s" for value in times[name][-1]), file=sys.stderr)
    compare("collection / plain module", times["ours"], times["plain"])
    compare("collection with -k / without", times["ours -k"], times["ours"])
    compare("plain module with -k / without", times["plain -k"], times["plain"])
    compare("first test / of the plain module", times["first"], times["plain first"])
    compare("first test, -n 2 / likewise", times["first -n 2"], times["plain first -n 2"])


def measure_plan(folder: Path) -> None:
    """Print the size of the plan as the workers receive it, and what it takes to get there."""
    models = read_manifest(folder / "ours" / "models.yaml")
    plan = Plan(run="0" * 12, models=tuple(planned(model, None, ()) for model in models))
    began = time.process_time()
    packed = pack_plan(plan)
    packed_at = time.process_time()
    unpack_plan(packed)
    unpacked_at = time.process_time()
    plain = len(msgspec.json.encode(plan))
    print(
        f"the plan: {len(packed):,} bytes ({plain:,} as JSON); packed in"
        f" {packed_at - began:.3f} s, unpacked in {unpacked_at - packed_at:.3f} s"
    )


def main(rounds: int) -> None:
    """Print each comparison."""
    ids = [
        f"publisher-{n % 100:02}/model-{n:05}-7b-instruct-{s}" for n in range(MODELS) for s in SIZES
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for each in ("ours", "plain"):
            (folder / each).mkdir()
            (folder / each / "conftest.py").write_text(CONFTEST, encoding="utf-8")
            (folder / each / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (folder / "ours" / "models.yaml").write_text(manifest(), encoding="utf-8")
        (folder / "plain" / "test_plain.py").write_text(PLAIN, encoding="utf-8")
        (folder / "plain" / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
        measure_plan(folder)
        measure(folder, rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
