"""What `reports/index.html` costs: `python benchmarks/nights.py [MODELS NIGHTS]`.

By default 300 models and 60 nights, processor time. Each night tests each model at two sizes; one
model in ten begins to fail, or works again, on some night. Compared with msgspec's decoding of the
same lines.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from measuring import ROOT, numbers, processor_seconds

sys.path.insert(0, str(ROOT))

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.lines import encode
from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.reports.nights.write import write_index

SIZES = (8_192, 32_767)
FIRST = datetime(2026, 1, 1, 22, tzinfo=UTC)


def main(models: int, nights: int) -> None:
    """Print the size of the page, and how long reading the registry and building it take."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "registry.jsonl"
        places = itertools.product(range(nights), range(models), SIZES)
        lines = [result(model, night, size) for night, model, size in places]
        path.write_bytes(b"".join(map(encode, lines)))
        print(f"{models} models, {nights} nights: {len(lines):,} lines")
        rounds = [
            (
                processor_seconds(lambda: decode(path)),
                processor_seconds(lambda: build(path, folder)),
            )
            for _ in range(5)
        ]
        bare, built = (statistics.median(column) for column in zip(*rounds, strict=True))
        size = (folder / "index.html").stat().st_size
    print(
        f"index.html: {size / 1e6:.2f} MB, {size / (models * nights):.0f} bytes a model and night"
    )
    print(f"built in {built:.2f} s, {built / bare:.1f} x of msgspec alone ({bare:.2f} s)")


def result(model: int, night: int, size: int) -> Result:
    fails = size > SIZES[0] and model % 10 == 0 and (night + model) % 20 > 12
    verdict = Verdict.OUT_OF_MEMORY if fails else Verdict.OK
    return Result(
        run=f"night-{night:03}", at=FIRST + timedelta(days=night, seconds=model), engine="lmstudio",
        model=f"publisher/some-model-{model}-instruct", host="localhost:1234", check="full",
        engine_version=f"0.3.{30 + night // 20}", fingerprint=f"size:{2_019_377_696 + model}",
        context_length=size, granted_context_length=size, verdict=verdict, outcome=verdict.outcome,
        detail="cannot allocate 12 GB" if fails else "", machine="0123456789abcdef",
    )  # fmt: skip


def decode(path: Path) -> None:
    decoder = msgspec.json.Decoder(Result)
    with path.open("rb") as stream:
        for line in stream:
            decoder.decode(line)


def build(path: Path, folder: Path) -> None:
    write_index(Registry(path), folder, made=FIRST + timedelta(days=400))


if __name__ == "__main__":
    main(*numbers(sys.argv[1:], 300, 60))
