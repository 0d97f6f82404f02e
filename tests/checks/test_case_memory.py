"""What a case needs, in the results of a run, and what is free."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_lmstrix.checks import case_memory
from pytest_lmstrix.checks.attempt import Attempts
from pytest_lmstrix.checks.case_memory import CaseMemory
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.memory import Device, DeviceNeed, MachineMemory, Needs
from pytest_lmstrix.core.types import Case, LoadSettings, Model, ProbeResult
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.plan.memory import MemoryEstimator
from tests.checks.laboratory import loader_for
from tests.standin.fake_engine import FakeEngine

MIB = 1024 * 1024
NEEDS = tuple(
    DeviceNeed(name=name, weights_bytes=size * MIB, kv_cache_bytes=0, compute_bytes=0,
               total_bytes=size * MIB)
    for name, size in (("Host", 100), ("CPU_REPACK", 2000), ("CUDA0 (RTX 4090)", 3000))
)  # fmt: skip


class KnownEstimates(MemoryEstimator):
    """Estimates `NEEDS` for every model but `unknown`."""

    def file(self, model: Model, *, fetch: bool) -> Path:
        if model.id == "unknown":
            raise Failure("no such file", verdict=Verdict.MODEL_NOT_FOUND, phase="load")
        return Path("f.gguf")

    def estimate(
        self, path: Path, load: LoadSettings, context_length: int, **more: object
    ) -> Needs:
        return NEEDS


class Memory:
    """The answer of psutil."""

    def __init__(self, mib: int) -> None:
        self.available = mib * MIB


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CaseMemory:
    """Of a machine with 1,500 MiB free on the host and 3,500 on a GPU."""
    monkeypatch.setattr(case_memory.psutil, "virtual_memory", lambda: Memory(1500))
    gpu = Device(name="CUDA0", total_bytes=4000 * MIB, free_bytes=3500 * MIB)
    machine = MachineMemory(total_bytes=8000 * MIB, available_bytes=0, devices=(gpu,))
    estimator = KnownEstimates(registry=tmp_path / "r.jsonl", folder=tmp_path, machine="m")
    return CaseMemory(estimator, read_machine=lambda engine: machine)


def case(model_id: str = "big", engine: str = "llamacpp") -> Case:
    return Case(model=Model(id=model_id, engine=engine), context_length=4096)


def result_of(memory: CaseMemory, finding: ProbeResult, case: Case) -> tuple[int | None, str]:
    attempts = Attempts(loader_for(FakeEngine(())), run="run", machine="m", memory=memory)
    result = attempts.result("full", case, finding)
    return result.estimated_memory_bytes, result.detail


def test_a_case_that_does_not_fit_has_the_numbers_of_each_device(memory: CaseMemory) -> None:
    assert memory.why_unfit(case()) == (
        "does not fit: needs 2,100 MiB, 1,500 MiB free,"
        " needs 3,000 MiB of CUDA0, 3,500 MiB free"
    )  # fmt: skip


def test_a_case_that_fits_has_no_reason_against_it(
    memory: CaseMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_memory.psutil, "virtual_memory", lambda: Memory(2100))
    assert memory.why_unfit(case()) is None


@pytest.mark.parametrize("unknown", [case("unknown"), case(engine="lmstudio")])
def test_what_is_unknown_is_not_unfit(memory: CaseMemory, unknown: Case) -> None:
    assert memory.why_unfit(unknown) is None
    assert memory.shortage(unknown) is None
    found = result_of(memory, ProbeResult(verdict=Verdict.OUT_OF_MEMORY, detail="x"), unknown)
    assert found == (None, "x")


def test_an_engine_that_takes_the_place_of_llamacpp_has_no_estimate(tmp_path: Path) -> None:
    estimator = KnownEstimates(registry=tmp_path / "r.jsonl", folder=tmp_path, machine="m")
    machine = MachineMemory(total_bytes=1, available_bytes=1)
    memory = CaseMemory(estimator, registered={"llamacpp"}, read_machine=lambda engine: machine)
    assert memory.needs(case()) is None


def test_a_lack_of_memory_says_what_was_needed_and_what_is_free(memory: CaseMemory) -> None:
    finding = ProbeResult(verdict=Verdict.OUT_OF_MEMORY, detail="failed to allocate")
    estimated, detail = result_of(memory, finding, case())
    assert estimated == 5100 * MIB
    assert detail == (
        "failed to allocate\nllama.cpp's dry run: needs 2,100 MiB, 1,500 MiB free,"
        " needs 3,000 MiB of CUDA0, 3,500 MiB free"
    )


def test_other_verdicts_have_the_estimate_alone(memory: CaseMemory) -> None:
    assert result_of(memory, ProbeResult(verdict=Verdict.OK), case()) == (5100 * MIB, "")
    found = result_of(memory, ProbeResult(verdict=Verdict.CORRUPTED), case())
    assert found == (None, "")
