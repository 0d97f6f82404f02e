"""What the registry costs: `python benchmarks/registry.py [FOLDER]`, all ratios from one run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psutil
from measuring import processor_seconds, seconds

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.lines import encode
from pytest_lmstrix.registry.store import Registry

LINES = 1_000_000
MODELS = 10_000
SIZES = (30_000, 40_000, 60_000, 80_000, 100_000, 120_000, 131_071)
START = datetime(2026, 1, 1, tzinfo=UTC)


def line(number: int) -> Result:
    """One of a million, as runs leave them: model by model, a check's sizes one after another."""
    turn, size = divmod(number, len(SIZES))
    turn, model = divmod(turn, MODELS)
    verdict = Verdict.OUT_OF_MEMORY if size > 4 else Verdict.OK
    return Result(
        run=f"20260101-{turn:06d}",
        at=START + timedelta(seconds=number),
        model=f"publisher/some-model-{model}-instruct",
        engine="lmstudio",
        host="localhost:1234",
        engine_version="0.3.31",
        fingerprint=f"size:{2_019_377_696 + model} path:publisher/some-model-{model}-q4_k_m.gguf",
        check=("full", "fast", "deep", "limit")[turn % 4],
        context_length=SIZES[size],
        granted_context_length=SIZES[size],
        verdict=verdict,
        outcome=verdict.outcome,
        replies=("96", "5"),
        load_seconds=3.25,
        ttft_seconds=0.52,
        prompt_tokens=61,
        prefill_tokens_per_second=812.5,
        decode_tokens_per_second=41.25,
        peak_memory_bytes=5_123_456_789,
        machine="0123456789abcdef",
    )


def append(folder: Path) -> None:
    """Append and a bare write with fsync of the same bytes, by turns; medians."""
    registry = Registry(folder / "append.jsonl")
    result = line(0)
    data = encode(result)
    descriptor = os.open(folder / "bare.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def bare() -> None:
        os.write(descriptor, data)
        os.fsync(descriptor)

    times: list[tuple[float, float]] = [
        (seconds(lambda: registry.append(result)), seconds(bare)) for _ in range(1_000)
    ]
    os.close(descriptor)
    ours, theirs = (statistics.median(column) * 1e6 for column in zip(*times, strict=True))
    print(f"append: {ours:.0f} us, bare write and fsync {theirs:.0f} us: {ours / theirs:.2f} x")


def decode_alone(path: Path) -> None:
    """Only what msgspec does for the same lines."""
    decode = msgspec.json.Decoder(Result).decode
    with path.open("rb") as stream:
        for raw in stream:
            decode(raw)


def load(path: Path) -> None:
    """Load and fold, against decoding alone; then all statuses."""
    times = [
        (processor_seconds(Registry(path).load), processor_seconds(lambda: decode_alone(path)))
        for _ in range(5)
    ]
    ours, alone = map(min, zip(*times, strict=True))
    print(f"load: {ours:.2f} s, msgspec alone {alone:.2f} s: {ours / alone:.2f} x")
    registry = Registry(path)
    registry.load()
    print(f"statuses of {MODELS:,} models: {seconds(registry.statuses):.2f} s")


def main() -> None:
    """Run all; the memory of loading is taken in a process of its own."""
    if sys.argv[1:2] == ["--memory"]:
        registry = Registry(sys.argv[2])
        registry.load()
        print(f"memory, all loaded: {psutil.Process().memory_info().rss >> 20} MiB")
        return
    with tempfile.TemporaryDirectory(dir=next(iter(sys.argv[1:]), None)) as name:
        folder = Path(name)
        append(folder)
        path = folder / "many.jsonl"
        with path.open("wb") as stream:
            stream.writelines(map(encode, map(line, range(LINES))))
        print(f"{LINES:,} lines, {path.stat().st_size / 2**20:.0f} MiB")
        load(path)
        subprocess.run([sys.executable, __file__, "--memory", str(path)], check=True)


if __name__ == "__main__":
    main()
