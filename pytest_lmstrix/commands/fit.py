"""`--lmstrix-fit`: the memory that models need, beside the memory that this machine has."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from typing import Any

import psutil
from msgspec import Struct

from pytest_lmstrix.commands.keyword import matcher
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.formatting import NOTHING, count_of, tokens
from pytest_lmstrix.core.memory import MachineMemory, total_of
from pytest_lmstrix.core.sanitize import escape_markdown
from pytest_lmstrix.core.table import Paint, TableCell, table
from pytest_lmstrix.core.types import Host, Model
from pytest_lmstrix.engines.base import Engine
from pytest_lmstrix.engines.llamacpp.binary import Binary
from pytest_lmstrix.options import Settings
from pytest_lmstrix.plan.fitting import FitRow, Fitter
from pytest_lmstrix.plan.lmstudio_models import LmStudioModels
from pytest_lmstrix.weights.places import usual_places

FIT_SCHEMA = 1
"""Raised when a key of the JSON changes its meaning or goes."""
_MOST_THREADS = 4
_MIB = 1024 * 1024
_HEADINGS = ("model", "engine", "context", "KV cache type", "device", "weights", "KV cache",
             "compute", "total", "free", "fits")  # fmt: skip
_EXPENDABLE = ("engine", "compute", "KV cache", "weights", "free", "device")
_TEXTS = ("engine", "KV cache type", "device", "fits")

WriteLine = Callable[[str], None]


class FitReport(Struct, frozen=True, kw_only=True):
    machine: MachineMemory
    rows: tuple[FitRow, ...]
    keyword: str = ""


def estimate_all(
    models: Sequence[Model],
    settings: Settings,
    *,
    hosts: Sequence[Host],
    keyword: str,
    registered: Sequence[Engine],
    progress: WriteLine,
) -> FitReport:
    """Estimate the models that `keyword` (as of `-k`) chooses; a failure is a row.

    Raises:
        ValueError: `keyword` is not a valid expression.
    """
    wanted = matcher(keyword)
    chosen = [
        each
        for each in models
        if each.type != "embedding" and wanted((each.id, each.engine, *each.tags))
    ]
    own = {engine.name for engine in registered}
    program = None
    if any(each.engine == "llama-server" and each.engine not in own for each in chosen):
        program = Binary(settings.llama_server)
    machine = read_machine(progress, program)
    studio = LmStudioModels(hosts, usual_places())
    if any(each.engine == "lmstudio" and each.engine not in own for each in chosen):
        studio.request()
    fitter = Fitter(settings, machine, studio, own, program)
    workers = max(1, min(_MOST_THREADS, os.cpu_count() or 1))
    with closing(studio), ThreadPoolExecutor(workers) as pool:
        pending = {pool.submit(fitter.rows, model): model for model in chosen}
        try:
            for count, done in enumerate(as_completed(pending), start=1):
                progress(f"{count}/{len(chosen)} {pending[done].id}")
        except BaseException:
            fitter.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return FitReport(
        machine=machine,
        rows=tuple(row for future in pending for row in future.result()),
        keyword=keyword,
    )


def read_machine(progress: WriteLine, program: Binary | None = None) -> MachineMemory:
    """Return the memory of this machine; without its GPUs, with a line, if they cannot be read.

    `program` is the user's own llama.cpp, if it is used.
    """
    from pytest_lmstrix.engines.llamacpp.dry_run import read_machine_memory

    try:
        return read_machine_memory(program)
    except (Failure, OSError) as error:
        progress(f"GPUs are not listed: {error}")
    memory = psutil.virtual_memory()
    return MachineMemory(total_bytes=memory.total, available_bytes=memory.available)


def fit_as_json(report: FitReport) -> str:
    """Pure ASCII: whatever a name holds, it does nothing to a terminal."""
    machine = report.machine
    content = {
        "schema": FIT_SCHEMA,
        "machine": {
            "total_bytes": machine.total_bytes,
            "available_bytes": machine.available_bytes,
            "devices": [
                {"name": each.name, "total_bytes": each.total_bytes, "free_bytes": each.free_bytes}
                for each in machine.devices
            ],
        },
        "models": [_object(row, machine) for row in report.rows],
    }
    return json.dumps(content, indent=2)


def _object(row: FitRow, machine: MachineMemory) -> dict[str, Any]:
    return {
        "id": row.model.id,
        "engine": row.model.engine,
        "context_length": row.context_length,
        "kv_cache_type": row.kv_cache_type,
        "devices": [
            {
                "name": need.name,
                "weights_bytes": need.weights_bytes,
                "kv_cache_bytes": need.kv_cache_bytes,
                "compute_bytes": need.compute_bytes,
                "total_bytes": need.total_bytes,
                "free_bytes": None if row.source == "engine" else machine.free_bytes(need.name),
            }
            for need in row.needs
        ],
        "total_bytes": total_of(row.needs) if row.needs else None,
        "fits": row.fits,
        "source": row.source,
    }


def fit_as_table(report: FitReport, *, paint: Paint, width: int | None) -> Iterator[str]:
    yield _machine_line(report.machine)
    yield ""
    rows = [cells for row in report.rows for cells in _cells(row, report.machine)]
    yield from table(_HEADINGS, rows, paint=paint, width=width, left=_TEXTS, expendable=_EXPENDABLE)
    yield from remarks(report)


def fit_as_markdown(report: FitReport) -> Iterator[str]:
    yield _machine_line(report.machine)
    yield ""
    yield f"| {' | '.join(_HEADINGS)} |"
    yield f"| {' | '.join(['---'] * len(_HEADINGS))} |"
    for row in report.rows:
        for cells in _cells(row, report.machine):
            texts = (cell if isinstance(cell, str) else cell[0] for cell in cells)
            yield f"| {' | '.join(escape_markdown(text, 1_000) for text in texts)} |"
    yield from (escape_markdown(line, 1_000) for line in remarks(report))


def remarks(report: FitReport) -> Iterator[str]:
    """Yield what the table leaves out, after an empty line: a line for each remark."""
    found = dict.fromkeys((*_remarks(report.rows), *_remarks_on_all(report)))
    yield from ("", *found) if found else ()


def _remarks(rows: Sequence[FitRow]) -> Iterator[str]:
    known = {(row.model.id, row.kv_cache_type) for row in rows if row.fits or row.reason}
    for row in rows:
        kind = f" with {row.kv_cache_type}" if row.kv_cache_type else ""
        if row.reason:
            size = f" at {tokens(row.context_length)}" if row.context_length else ""
            yield f"{row.model.id}{size}{kind}: {row.reason}"
        elif (row.model.id, row.kv_cache_type) not in known:
            yield f"{row.model.id}{kind}: fits at no context length"
        if row.from_header:
            yield f"{row.model.id}: estimated from the header alone; the weights are not here"


def _remarks_on_all(report: FitReport) -> Iterator[str]:
    if not report.rows:
        matching = f" that matches -k {report.keyword!r}" if report.keyword else ""
        yield f"no language model{matching}"
    if own := {row.model.id for row in report.rows if row.source == "engine"}:
        yield f"LM Studio itself estimated {count_of(len(own), 'model')}, and decides what fits"


def _machine_line(machine: MachineMemory) -> str:
    parts = [f"this machine: {_mib(machine.available_bytes)} of {_mib(machine.total_bytes)} MiB"
             " available"]  # fmt: skip
    parts += [
        f"{each.name}: {_mib(each.free_bytes)} of {_mib(each.total_bytes)} MiB free"
        for each in machine.devices
    ]
    return "; ".join(parts)


def _cells(row: FitRow, machine: MachineMemory) -> Iterator[list[TableCell]]:
    context = tokens(row.context_length) + (" (largest)" if row.largest else "")
    start = [row.model.id, row.model.engine, context, row.kv_cache_type or NOTHING]
    verdict: TableCell = "not reported"
    if row.fits is not None:
        verdict = ("yes", "green") if row.fits else ("no", "red")
    if not row.needs:
        yield [*start, *[NOTHING] * 6, verdict]
    for need in row.needs:
        sizes = (need.weights_bytes, need.kv_cache_bytes, need.compute_bytes, need.total_bytes)
        free, name = _mib(machine.free_bytes(need.name)), need.name
        if row.source == "engine":
            free, name = NOTHING, f"{name} (LM Studio)"
        yield [*start, name, *map(_mib, sizes), free, verdict]


def _mib(size_bytes: int) -> str:
    return f"{size_bytes // _MIB:,}"
