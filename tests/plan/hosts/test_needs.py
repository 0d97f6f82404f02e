"""The least memory of a model by its weights and by what earlier runs measured."""

from __future__ import annotations

from pathlib import Path

from pytest_lmstrix.core.types import LoadSettings, Model
from pytest_lmstrix.plan.hosts.needs import LeastMemory
from pytest_lmstrix.plan.memory import MemoryEstimator
from pytest_lmstrix.plan.plan import PlannedModel
from pytest_lmstrix.registry.store import Registry
from tests.registry.results import a_result

SIZES = (512, 1024, 2048)


def test_weights_and_earlier_loads_tell_the_least_memory(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.jsonl")
    of_m = {"model": "m", "engine": "mine", "fingerprint": "size:1"}
    for result in (
        a_result(512, peak_memory_bytes=900, **of_m),
        a_result(1024, peak_memory_bytes=2_000, estimated_memory_bytes=1_500, **of_m),
        a_result(2048, "out_of_memory", estimated_memory_bytes=4_000, **of_m),
        a_result(512, peak_memory_bytes=9_000, **of_m | {"fingerprint": "size:2"}),
        a_result(512, peak_memory_bytes=9_000, **of_m, settings='{"threads":4}'),
    ):
        registry.append(result)
    estimator = MemoryEstimator(registry=tmp_path / "r", folder=tmp_path, machine="x")
    needs = LeastMemory(registry, estimator)
    model = Model(id="m", engine="mine", fingerprint="size:1", size_bytes=1_000)
    planned = PlannedModel(model=model, context_lengths=SIZES)
    assert [needs.of(planned, size) for size in (256, *SIZES, 9999)] == [
        1_000, 1_000, 2_000, 4_000, 4_000,
    ]  # fmt: skip
    other = Model(id="m", engine="mine", fingerprint="size:1", load=LoadSettings(threads=4))
    assert needs.of(PlannedModel(model=other, context_lengths=SIZES), 512) == 9_000
    unknown = Model(id="n", engine="mine")
    assert needs.of(PlannedModel(model=unknown, context_lengths=SIZES), 512) is None
