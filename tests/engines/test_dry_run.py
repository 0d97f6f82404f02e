"""The memory of a load before the load: llama.cpp's dry run against what it really allocates."""

from __future__ import annotations

import json
import queue
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from msgspec import structs

pytest.importorskip("xllamacpp")

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.memory import Device, DeviceNeed, MachineMemory, total_of
from pytest_lmstrix.core.types import KvCacheType, LoadSettings
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp import child as child_program
from pytest_lmstrix.engines.llamacpp.dry_run import MIB, estimate, parse_table, read_machine_memory
from pytest_lmstrix.system.child_process import Child
from tests.standin import header_file, weights
from tests.standin.tiny_models import ARCHITECTURES, write_tiny_model

HEADING = (
    "0.01.0 I common_memory_breakdown_print: "
    "| memory breakdown [MiB] | total   free    self   model   context   compute    unaccounted |"
)
HOST = (
    "0.01.0 I common_memory_breakdown_print: "
    "|   - Host               |                  141 =    92 +      45 +       4                |"
)
CUDA = (
    "0.01.0 I common_memory_breakdown_print: "
    "|   - CUDA0 (RTX 4090)   | 24080 = 23000 + (  750 =   500 +     200 +      50) +         330 |"
)
LOAD_LOUDLY = f"""
import sys, xllamacpp
sys.path.insert(0, {str(Path(child_program.__file__).parent)!r})
import child

def loud_params(make=xllamacpp.CommonParams):
    params = make()
    params.verbosity = 4
    params.warmup = False
    return params

xllamacpp.CommonParams = loud_params
child._serve()
"""
"""The server as it is, but it logs its buffers."""


def load_and_add_up(path: Path, load: LoadSettings, context_length: int) -> float:
    """Load a model, and return the MiB of all buffers that llama.cpp has allocated."""
    configuration = child_program.configuration(
        path, context_length, structs.asdict(load), api_key="secret"
    )
    child = Child(
        [sys.executable, "-P", "-c", LOAD_LOUDLY], json.dumps(configuration).encode() + b"\n"
    )
    try:
        assert child.lines.get(timeout=120) is not None, child.log()
        deadline = time.monotonic() + 60
        while not any("listening on" in line for line in child.log()):  # it logs in a thread
            assert time.monotonic() < deadline, child.log()
            time.sleep(0.02)
    except queue.Empty:
        pytest.fail(f"it does not load: {child.log()[-5:]}")
    finally:
        child.end()
    sizes = [
        float(found[1])
        for line in child.log()
        if (found := re.search(r"(?:model|KV|RS|compute|output) buffer size = +([\d.]+) MiB", line))
    ]
    assert len(sizes) >= 4, child.log()
    return sum(sizes)


@pytest.mark.parametrize("kv_cache_type", ["f16", "q8_0"])
@pytest.mark.parametrize("context_length", [2048, 8192])
def test_the_dry_run_is_within_2_mib_of_the_buffers_of_a_load(
    context_length: int, kv_cache_type: KvCacheType
) -> None:
    load = LoadSettings(kv_cache_type=kv_cache_type, threads=1)
    needs = estimate(weights.smollm2(), load, context_length)
    real = load_and_add_up(weights.smollm2(), load, context_length)
    assert abs(total_of(needs) / MIB - real) <= 2


QUICK = ("gemma3", "qwen3moe", "mamba", "falcon-h1", "gpt-oss")
"""Sliding window, experts, recurrent, recurrent beside attention, windows beside experts."""
OTHERS = sorted({*ARCHITECTURES} - {*QUICK})


@pytest.mark.parametrize(
    "architecture",
    [*QUICK, *(pytest.param(each, marks=pytest.mark.long) for each in OTHERS)],
)
def test_the_dry_run_knows_the_buffers_of_other_architectures(
    tmp_path: Path, architecture: str
) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", architecture)
    load = LoadSettings(threads=1)
    needs = estimate(path, load, 4096)
    assert abs(total_of(needs) / MIB - load_and_add_up(path, load, 4096)) <= 2


def test_a_header_alone_gives_the_same_numbers_as_the_whole_file(tmp_path: Path) -> None:
    whole = weights.smollm2()
    header = tmp_path / "header.gguf"
    with whole.open("rb") as file:
        header.write_bytes(file.read(2_000_000))
    with header.open("rb+") as file:
        file.truncate(whole.stat().st_size)
    assert estimate(header, LoadSettings(), 1024) == estimate(whole, LoadSettings(), 1024)


def test_a_70b_model_of_a_few_kilobytes_on_disk_needs_more_than_37_gib(tmp_path: Path) -> None:
    path = header_file.write_llama_70b(tmp_path / "70b.gguf")
    needs = estimate(path, LoadSettings(), 8192)
    assert 37 * 1024 * MIB < total_of(needs) < 42 * 1024 * MIB
    assert [need.name for need in needs if need.kv_cache_bytes] == ["Host"]
    assert needs[0].kv_cache_bytes == 2560 * MIB
    machine = MachineMemory(total_bytes=32 * 1024 * MIB, available_bytes=30 * 1024 * MIB)
    assert not machine.fits(needs)


DRY_RUN_WITH_TIME = f"""
import atexit, resource, sys
sys.path.insert(0, {str(Path(child_program.__file__).parent)!r})
import child
resource.setrlimit(resource.RLIMIT_DATA, (8 * 1024**3, 8 * 1024**3))
atexit.register(lambda: print("limit", resource.getrlimit(resource.RLIMIT_DATA), flush=True))
child._serve()
"""
"""The server of a dry run that is not ended; it takes no more memory even without its limit."""


@pytest.mark.skipif(sys.platform != "linux", reason="others enforce no limit")
def test_a_dry_run_that_is_not_ended_never_loads_the_model(tmp_path: Path) -> None:
    path = header_file.write_llama_70b(tmp_path / "70b.gguf")
    configuration = child_program.configuration(
        path, 2048, structs.asdict(LoadSettings()), api_key="", dry_run=True
    )
    child = Child(
        [sys.executable, "-P", "-c", DRY_RUN_WITH_TIME], json.dumps(configuration).encode() + b"\n"
    )
    log = []
    try:
        while (line := child.lines.get(timeout=60)) is not None:
            log.append(line.decode())
    finally:
        child.end(patience_seconds=0)
    assert any("unable to allocate CPU_REPACK buffer" in line for line in log)
    assert log[-1].split() == ["limit", "(4294967296,", "4294967296)"]
    assert child.exit_status == child_program.REFUSED


def test_what_is_not_a_model_is_refused_with_the_reason_of_llama_cpp(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<html>")
    with pytest.raises(Failure, match="invalid magic") as raised:
        estimate(path, LoadSettings(), 512)
    assert str(tmp_path) not in raised.value.text


def test_a_dry_run_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    path = header_file.write_tiny_llama(tmp_path / "tiny.gguf")
    with pytest.raises(Failure, match="took more than 0 s") as raised:
        estimate(path, LoadSettings(), 512, timeout_seconds=0)
    assert raised.value.verdict is Verdict.TIMEOUT


def test_the_machine_has_memory() -> None:
    machine = read_machine_memory()
    assert 0 < machine.available_bytes <= machine.total_bytes
    assert all(0 <= each.free_bytes <= each.total_bytes for each in machine.devices)


def test_the_parser_is_tried_with_the_installed_version_of_xllamacpp() -> None:
    """Its table is a log, not an interface: read the new one before raising this number."""
    assert version("xllamacpp") == "2026.10.11549"


def test_every_row_of_the_table_counts() -> None:
    needs = parse_table([HEADING, CUDA, HOST])
    assert needs == (
        DeviceNeed(name="CUDA0 (RTX 4090)", weights_bytes=500 * MIB, kv_cache_bytes=200 * MIB,
                   compute_bytes=50 * MIB, total_bytes=750 * MIB),
        DeviceNeed(name="Host", weights_bytes=92 * MIB, kv_cache_bytes=45 * MIB,
                   compute_bytes=4 * MIB, total_bytes=141 * MIB),
    )  # fmt: skip
    assert total_of(needs) == 891 * MIB


def test_a_second_table_is_of_other_settings() -> None:
    assert len(parse_table([HEADING, HOST, HEADING, CUDA, HOST])) == 1


@pytest.mark.parametrize(
    "log",
    [
        [],
        [HOST],
        [HEADING],
        [HEADING.replace("context", "cache"), HOST],
        [HEADING, HOST.replace("=", "is")],
        [HEADING, HOST.replace("141", "961")],
        [HEADING, HOST.replace("92", "9.2")],
    ],
    ids=["empty", "no heading", "no rows", "a new column", "no sum", "a wrong sum", "fractions"],
)
def test_a_table_that_is_not_the_known_one_is_an_error(log: list[str]) -> None:
    with pytest.raises(Failure, match=r"memory table|parts are not its total"):
        parse_table(log)


def need(name: str, total_bytes: int) -> DeviceNeed:
    return DeviceNeed(name=name, weights_bytes=total_bytes, kv_cache_bytes=0, compute_bytes=0,
                      total_bytes=total_bytes)  # fmt: skip


def test_a_model_fits_only_where_every_device_has_room_for_its_part() -> None:
    gpu = Device(name="CUDA0", total_bytes=24, free_bytes=20)
    machine = MachineMemory(total_bytes=64, available_bytes=30, devices=(gpu,))
    assert machine.fits(
        (
            need("CUDA0 (RTX 4090)", 20),
            need("Host", 30),
        )
    )
    assert not machine.fits(
        (
            need("CUDA0 (RTX 4090)", 21),
            need("Host", 1),
        )
    )
    assert not machine.fits(
        (
            need("Host", 20),
            need("CPU_REPACK", 11),
        )
    )
    assert machine.free_bytes("CUDA0 (RTX 4090)") == 20
    assert machine.free_bytes("CPU_REPACK") == 30


def test_a_gpu_without_memory_of_its_own_takes_that_of_the_host() -> None:
    gpu = Device(name="MTL0", total_bytes=24, free_bytes=20, shares_host_memory=True)
    machine = MachineMemory(total_bytes=32, available_bytes=22, devices=(gpu,))
    assert machine.fits(
        (
            need("MTL0 (Apple M4)", 18),
            need("Host", 4),
        )
    )
    assert not machine.fits(
        (
            need("MTL0 (Apple M4)", 18),
            need("Host", 5),
        )
    )
