"""The memory that a load will take, from llama.cpp's own dry run, which reads no weights.

llama.cpp plans a load to fit its parameters to the memory, and logs the plan as a table. A child
process runs that far and is ended. Only the header of the file is read.

Source: `common_memory_breakdown_print` and `common_fit_params` in llama.cpp's `common/`
"""

from __future__ import annotations

import json
import queue
import re
import secrets
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
from msgspec import structs

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.memory import Device, DeviceNeed, MachineMemory, Needs
from pytest_lmstrix.core.types import LoadSettings
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp import child as child_program
from pytest_lmstrix.engines.llamacpp.arguments import serve_arguments
from pytest_lmstrix.engines.llamacpp.binary import Binary, environment
from pytest_lmstrix.engines.llamacpp.causes import error_lines
from pytest_lmstrix.system.child_process import Child, describe_exit

MIB = 1024 * 1024
"""The unit, and so the precision, of llama.cpp's table."""
TIMEOUT_SECONDS = 120.0
_TABLE = "common_memory_breakdown_print: "
_END = "common_fit_params: "
_HEADINGS = "memory breakdown [MiB] total free self model context compute unaccounted"
_ROW = re.compile(
    r"\| +- (?P<name>\S.*?) +\|"
    r" *(?:\d+ = +\d+ \+ \( *)?"  # a device with memory of its own: its total and free memory
    r"(?P<total>\d+) = +(?P<weights>\d+) \+ +(?P<kv_cache>\d+) \+ +(?P<compute>\d+)"
    r"(?:\) \+ +-?\d+)? +\|"
)


def estimate(
    path: Path,
    load: LoadSettings,
    context_length: int,
    *,
    program: Binary | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Needs:
    """Return the memory that each device needs to load the model in `path`.

    `path` may be a sparse file of the right length with the header alone. `program` is the user's
    own llama.cpp; by default it is the embedded one.

    Raises:
        Failure: llama.cpp refuses the model, prints no table, or takes too long.
        OSError: The child process cannot be started.
    """
    if program is None:
        configuration = child_program.configuration(
            path, context_length, structs.asdict(load), api_key="", dry_run=True
        )
    else:
        gpu = bool(program.devices) and load.gpu_layers != 0
        words = serve_arguments(path, context_length, load, program.flags, gpu=gpu, dry_run=True)
        configuration = child_program.command_configuration(
            [str(program.path), *words],
            environment(LLAMA_API_KEY=secrets.token_hex()),
            lines=True,
        )
    command = [sys.executable, "-P", child_program.__file__]
    child = Child(command, json.dumps(configuration).encode() + b"\n")
    log: list[str] = []
    table: list[str] = []
    try:
        for line in _lines(child, timeout_seconds):
            log.append(line)
            if _TABLE in line:
                table.append(line)
            elif table:
                # Later tables are of other settings than those of the load.
                return parse_table(table)
            if _END in line:
                break
    finally:
        child.end(patience_seconds=1.0)
    raise _no_table(child, log, path)


def read_machine_memory(
    program: Binary | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS
) -> MachineMemory:
    """Return the memory of this machine and of the devices that llama.cpp finds.

    Those that `program` finds take precedence over those of the embedded one.

    Raises:
        Failure: llama.cpp cannot list the devices.
        OSError: The child process cannot be started.
    """
    devices: dict[str, Device] = {}
    if program is None or find_spec("xllamacpp") is not None:
        devices = {each.name: each for each in _embedded_devices(timeout_seconds)}
    if program is not None:
        devices |= {each.name: each for each in program.read_devices()}
    memory = psutil.virtual_memory()
    return MachineMemory(
        total_bytes=memory.total,
        available_bytes=memory.available,
        devices=tuple(devices.values()),
    )


def _embedded_devices(timeout_seconds: float) -> list[Device]:
    child = Child([sys.executable, "-P", child_program.__file__, "devices"], b"\n")
    try:
        lines = list(_lines(child, timeout_seconds))
    finally:
        child.end(patience_seconds=1.0)
    found = [line for line in lines if line.startswith("[")]
    if len(found) != 1:
        raise _failure("llama.cpp cannot list the devices", [*lines, *child.log()])
    return [Device(**each) for each in json.loads(found[0])]


def parse_table(log: list[str]) -> Needs:
    """Return the rows of the first memory table in `log`.

    Raises:
        Failure: It is not the table that this version knows.
    """
    lines = [line.partition(_TABLE)[2] for line in log if _TABLE in line]
    heading = " ".join(lines[0].replace("|", " ").split()) if lines else ""
    if heading != _HEADINGS:
        raise _failure(f"an unknown memory table: {lines[:1]}", [])
    needs = []
    for line in lines[1:]:
        row = _ROW.fullmatch(line.rstrip())
        if row is None:
            if "memory breakdown" in line:
                break  # the table of another try
            raise _failure(f"an unknown row of the memory table: {line!r}", [])
        need = DeviceNeed(
            name=row["name"],
            weights_bytes=int(row["weights"]) * MIB,
            kv_cache_bytes=int(row["kv_cache"]) * MIB,
            compute_bytes=int(row["compute"]) * MIB,
            total_bytes=int(row["total"]) * MIB,
        )
        parts = need.weights_bytes + need.kv_cache_bytes + need.compute_bytes
        if not 0 <= need.total_bytes - parts <= 3 * MIB:  # each is rounded down
            raise _failure(f"a row whose parts are not its total: {line!r}", [])
        needs.append(need)
    if not needs:
        raise _failure("a memory table without rows", [])
    return tuple(needs)


def _lines(child: Child, timeout_seconds: float) -> Iterator[str]:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            line = child.lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            text = f"timed out: llama.cpp's dry run took more than {timeout_seconds:g} s"
            raise Failure(text, verdict=Verdict.TIMEOUT, phase="load") from None
        if line is None:
            return
        yield line.decode(errors="replace").rstrip("\r\n")


def _no_table(child: Child, log: list[str], path: Path) -> Failure:
    reasons = error_lines([line for line in [*log, *child.log()] if _END not in line])
    text = "\n".join(reasons).replace(str(path), "the model file")
    status = child.exit_status
    if status is not None and status < 0 and not reasons:
        text = f"llama.cpp ended: {describe_exit(status)}"
    return Failure.from_engine(
        text or "llama.cpp's dry run printed no memory table", phase="load", exit_status=status
    )


def _failure(text: str, log: list[str]) -> Failure:
    words = "\n".join([f"llama.cpp's dry run: {text}", *error_lines(log)])
    return Failure(words, verdict=Verdict.ENGINE_ERROR, phase="load")
