"""`--lmstrix-fit`: the memory that models need, beside the memory that this machine has."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

import psutil
from msgspec import Struct
from msgspec.structs import replace

from pytest_lmstrix.commands.keyword import matcher
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.formatting import NOTHING, tokens
from pytest_lmstrix.core.memory import MachineMemory, Needs, total_of
from pytest_lmstrix.core.sanitize import escape_markdown
from pytest_lmstrix.core.table import Paint, TableCell, table
from pytest_lmstrix.core.types import KvCacheType, Model
from pytest_lmstrix.engines.base import Engine
from pytest_lmstrix.options import Settings
from pytest_lmstrix.plan.lmstudio_files import LmStudioFiles
from pytest_lmstrix.plan.memory import MemoryEstimator, largest_context
from pytest_lmstrix.plan.plan import planned
from pytest_lmstrix.system.machine_id import machine_id
from pytest_lmstrix.weights.fetch import is_header
from pytest_lmstrix.weights.places import usual_places
from pytest_lmstrix.weights.preflight import preflight

FIT_SCHEMA = 1
"""Raised when a key of the JSON changes its meaning or goes."""
_ESTIMATED = ("llamacpp", "llama-server", "lmstudio")
_DEFAULT_TYPES: tuple[KvCacheType, ...] = ("f16", "q8_0")
_MOST_THREADS = 4
_MIB = 1024 * 1024
_HEADINGS = ("model", "engine", "context", "KV cache type", "device", "weights", "KV cache",
             "compute", "total", "free", "fits")  # fmt: skip
_EXPENDABLE = ("engine", "compute", "KV cache", "weights", "free", "device")
_TEXTS = ("engine", "KV cache type", "device", "fits")

WriteLine = Callable[[str], None]


class FitRow(Struct, frozen=True, kw_only=True):
    """A model at one context length with one type of KV cache."""

    model: Model
    context_length: int | None = None
    kv_cache_type: KvCacheType | None = None
    needs: Needs = ()
    fits: bool | None = None
    source: Literal["dry-run", "none"] = "none"
    largest: bool = False
    """No larger context fits."""
    from_header: bool = False
    """The weights are elsewhere; only the header of their file is here."""
    reason: str = ""
    """Why nothing is known."""


class FitReport(Struct, frozen=True, kw_only=True):
    machine: MachineMemory
    rows: tuple[FitRow, ...]


def estimate_all(
    models: Sequence[Model],
    settings: Settings,
    *,
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
    machine = read_machine(progress)
    own = {engine.name for engine in registered}
    files = LmStudioFiles(settings.hosts, usual_places())
    if any(each.engine == "lmstudio" and each.engine not in own for each in chosen):
        files.ask()
    fitter = _Fitter(settings, machine, files, own)
    workers = max(1, min(_MOST_THREADS, os.cpu_count() or 1))
    with ThreadPoolExecutor(workers) as pool:
        pending = {pool.submit(fitter.rows, model): model for model in chosen}
        try:
            for count, done in enumerate(as_completed(pending), start=1):
                progress(f"{count}/{len(chosen)} {pending[done].id}")
        except BaseException:
            fitter.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return FitReport(
        machine=machine, rows=tuple(row for future in pending for row in future.result())
    )


def read_machine(progress: WriteLine) -> MachineMemory:
    """Return the memory of this machine; without its GPUs, with a line, if they cannot be read."""
    from pytest_lmstrix.engines.llamacpp.dry_run import read_machine_memory

    try:
        return read_machine_memory()
    except (Failure, OSError) as error:
        progress(f"GPUs are not listed: {error}")
    memory = psutil.virtual_memory()
    return MachineMemory(total_bytes=memory.total, available_bytes=memory.available)


class _Fitter:
    """Makes the rows of a model; several threads use it."""

    def __init__(
        self,
        settings: Settings,
        machine: MachineMemory,
        files: LmStudioFiles,
        registered: set[str],
    ) -> None:
        self._settings = settings
        self._machine = machine
        self._files = files
        self._registered = registered
        self.stopped = threading.Event()
        """Set to estimate no more."""
        self._estimator = MemoryEstimator(
            registry=settings.registry, folder=settings.models.parent, machine=machine_id()
        )

    def rows(self, model: Model) -> list[FitRow]:
        """Return the rows of `model`, largest contexts last; one with the reason if it fails."""
        try:
            path = self._path(model)
            checked = preflight(path)
            if checked.verdict is not None:
                raise ValueError(checked.reason)
            if checked.kind == "embedding":
                raise ValueError("an embedding model, which is never tested")
            limit = model.context_limit or checked.context_length
        except (Failure, OSError, ValueError) as error:
            return [FitRow(model=model, reason=_reason(error))]
        own = model.load.kv_cache_type
        if own is not None and model.variant_of is not None:
            return list(self._rows_of_type(model, path, limit, own))
        first = () if own in (None, *_DEFAULT_TYPES) else (own,)
        types: tuple[KvCacheType, ...] = (*first, *_DEFAULT_TYPES)
        return [
            row
            for kind in dict.fromkeys(types)
            for row in self._rows_of_type(model, path, limit, kind)
        ]

    def _path(self, model: Model) -> Path:
        if model.engine in self._registered or model.engine not in _ESTIMATED:
            raise ValueError(f"not reported: engine '{model.engine}' has no estimate")
        if model.engine == "lmstudio":
            return self._files.find(model.name)
        return self._estimator.file(model, fetch=True)

    def _rows_of_type(
        self, model: Model, path: Path, limit: int | None, kind: KvCacheType
    ) -> Iterator[FitRow]:
        load = replace(model.load, kv_cache_type=kind)
        row = FitRow(model=model, kv_cache_type=kind, from_header=is_header(path))
        known: dict[int, Needs] = {}
        sizes = planned(replace(model, context_limit=limit), self._settings.contexts, ())
        failed: list[FitRow] = []

        def estimate(size: int) -> Needs:
            if self.stopped.is_set():
                raise CancelledError
            known[size] = self._estimator.estimate(path, load, size)
            return known[size]

        try:
            for size in sizes.context_lengths:
                row = replace(row, context_length=size)
                estimate(size)
            most = limit or max(known)
            largest = largest_context(estimate, self._machine, limit=most, known=dict(known))
        except (Failure, OSError) as error:
            failed = [replace(row, reason=_reason(error))]
            largest = None
        shown = {*sizes.context_lengths, largest} & set(known)
        for size in sorted(size for size in shown if size is not None):
            yield replace(
                row,
                context_length=size,
                needs=known[size],
                fits=self._machine.fits(known[size]),
                source="dry-run",
                largest=size == largest,
            )
        yield from failed


def _reason(error: Exception) -> str:
    return " ".join((error.text if isinstance(error, Failure) else str(error)).split())


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
                "free_bytes": machine.free_bytes(need.name),
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
    found = dict.fromkeys(_remarks(report.rows))
    yield from ("", *found) if found else ()


def _remarks(rows: Sequence[FitRow]) -> Iterator[str]:
    fitting = {(row.model.id, row.kv_cache_type) for row in rows if row.largest}
    for row in rows:
        kind = f" with {row.kv_cache_type}" if row.kv_cache_type else ""
        if row.reason:
            size = f" at {tokens(row.context_length)}" if row.context_length else ""
            yield f"{row.model.id}{size}{kind}: {row.reason}"
        elif (row.model.id, row.kv_cache_type) not in fitting:
            yield f"{row.model.id}{kind}: fits at no context length"
        if row.from_header:
            yield f"{row.model.id}: estimated from the header alone; the weights are not here"


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
        free = _mib(machine.free_bytes(need.name))
        yield [*start, need.name, *map(_mib, sizes), free, verdict]


def _mib(size_bytes: int) -> str:
    return f"{size_bytes // _MIB:,}"
