"""`--lmstrix-list`: models of the manifest with their status in the registry; asks no engine."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from pytest_lmstrix.commands.keyword import matcher
from pytest_lmstrix.core.formatting import (
    NOTHING,
    capabilities_text,
    file_size,
    rate,
    seconds,
    tokens,
)
from pytest_lmstrix.core.sanitize import escape_markdown, one_line
from pytest_lmstrix.core.table import Paint, TableCell, prose, table, without_alike
from pytest_lmstrix.core.types import ANY_SIZE, Model, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.options import Settings
from pytest_lmstrix.plan.memory import MemoryEstimator
from pytest_lmstrix.plan.plan import ordered, planned
from pytest_lmstrix.registry.history.since import Since, short_text
from pytest_lmstrix.registry.status import (
    VariantComparison,
    compare_variants,
    display_status,
    shown_since,
    sort_values,
    status_of,
)
from pytest_lmstrix.registry.store import ModelStatus, Registry
from pytest_lmstrix.reports.overview.variants import STATUS_STYLES, VARIANT_HEADINGS, variant_cells
from pytest_lmstrix.system.addresses import shown_host
from pytest_lmstrix.system.machine_id import machine_id

LIST_SCHEMA = 1
"""Increased when a JSON key is removed or changes its meaning; new keys do not count."""

CAPABILITIES = "capabilities"
"""Heading of the last column, which is there if any model has some."""
_HEADINGS = ("model", "engine", "host", "size", "estimate", "declared", "verified", "first bad",
             "status", "since", "TTFT", "tokens/s", "tested (UTC)", CAPABILITIES)  # fmt: skip
_PAST_CELLS = ("", "at", "check", "host", "tokens", "verdict", "rate", "remarks")
_SORTED_BY = {
    "size": "size", "estimate": "estimate", "declared": "declared", "ctx": "verified",
    "status": "status", "ttft": "TTFT", "tps": "tokens/s", "tested": "tested (UTC)",
}  # fmt: skip
_EXPENDABLE = ("engine", CAPABILITIES, "estimate", "TTFT", "size", "declared", "tokens/s",
               "tested (UTC)", "host", "since", "first bad", "verified", "status")  # fmt: skip
_FROM_MODEL = ("id", "variant_of", "engine", "type", "tags", "size_bytes", "context_limit",
               "architecture", "quantization", "capabilities")  # fmt: skip
_FROM_REGISTRY = ("fingerprint", "verified_context", "verified_check", "tiers", "largest_good",
                  "smallest_bad", "smallest_bad_verdict", "verdict", "last_tested", "host",
                  "load_seconds",
                  "ttft_seconds", "decode_tokens_per_second", "peak_memory_bytes",
                  "estimated_memory_bytes", "capability_proofs", "imported")  # fmt: skip


class Entry(Struct, frozen=True, kw_only=True):
    """A model and its status."""

    model: Model
    known: ModelStatus
    since: Since | None = None

    @property
    def status(self) -> str:
        return display_status(self.model, self.known)


ModelHistory = Mapping[str, Sequence[Result]]
"""Model id -> its results, oldest first."""


def entries(
    models: Sequence[Model], registry: Registry, settings: Settings, *, key: str, keyword: str = ""
) -> list[Entry]:
    """Return the models whose id, engine or tags match `keyword`, sorted by `key` as in a run.

    Raises:
        RegistryError: The registry cannot be read.
        ValueError: `keyword` is not a valid expression.
    """
    chosen = [planned(model, settings.contexts, ()) for model in matching(models, keyword)]
    estimator = MemoryEstimator(
        registry=settings.registry, folder=settings.models.parent, machine=machine_id()
    )
    in_order = ordered(chosen, key, sort_values(registry, models), estimator.cached_bytes)
    return [_entry(each.model, registry) for each in in_order]


def matching(models: Iterable[Model], keyword: str) -> list[Model]:
    """Return the models whose id, engine or tags match `keyword`.

    Raises:
        ValueError: `keyword` is not a valid expression.
    """
    wanted = matcher(keyword)
    return [model for model in models if wanted((model.id, model.engine, *model.tags))]


def _entry(model: Model, registry: Registry) -> Entry:
    known = status_of(registry, model)
    return Entry(model=model, known=known, since=shown_since(registry, model, known))


def history(listed: Iterable[Entry], registry: Registry, most: int | None = None) -> ModelHistory:
    """Return the results of the listed models; at most the newest `most` of each."""
    found: dict[str, deque[Result]] = {entry.model.id: deque(maxlen=most) for entry in listed}
    for result in registry.results():
        if result.model in found:
            found[result.model].append(result)
    return {model: list(results) for model, results in found.items()}


def as_ids(listed: Iterable[Entry]) -> Iterator[str]:
    """Return one id per line."""
    return (one_line(entry.model.id, 1_000) for entry in listed)


def as_table(
    listed: Sequence[Entry], *, key: str, paint: Paint, width: int | None
) -> Iterator[str]:
    """Return the lines of the table, and what `deep` has shown of models besides its verdict.

    The column of sort key `key` is never dropped.
    """
    sorted_by = _SORTED_BY.get(key) or _SORTED_BY.get(key.removesuffix("d"))
    headings, rows = _columns(listed)
    yield from table(
        headings,
        rows,
        paint=paint,
        width=width,
        left=("engine", "host", "status", "since", CAPABILITIES),
        expendable=[each for each in _EXPENDABLE if each != sorted_by and each in headings],
    )
    yield from prose([[text] for text in _tiers(listed)], paint=paint, width=width)


def _tiers(listed: Iterable[Entry]) -> Iterator[str]:
    """Yield `tiny, deep: reach 8,192, resist 4,096`."""
    for entry in listed:
        if entry.known.tiers is not None:
            yield f"{entry.model.id}, deep: {entry.known.tiers.text}"


def _columns(listed: Iterable[Entry]) -> tuple[list[str], list[list[TableCell]]]:
    """Return headings and rows, without the columns in which no model has anything of its own."""
    headings, rows = without_alike("host", _HEADINGS, [_cells(entry) for entry in listed])
    if all(row[-1] == NOTHING for row in rows):
        return headings[:-1], [row[:-1] for row in rows]
    return headings, rows


def compared(listed: Iterable[Entry]) -> tuple[VariantComparison, ...]:
    """Return the variants of each listed model that has several."""
    return compare_variants((entry.model, entry.known) for entry in listed)


def as_history(past: ModelHistory, *, paint: Paint, width: int | None) -> Iterator[str]:
    """Return the lines of all results, grouped by model."""
    for model, results in past.items():
        if results:
            yield ""
            yield one_line(model)
            cells = [["", *_past_cells(result)] for result in results]
            headings, rows = without_alike("host", _PAST_CELLS, cells)
            right = [headings.index(each) for each in ("tokens", "rate")]
            yield from prose(rows, paint=paint, width=width, right=right)


def as_markdown(listed: Iterable[Entry]) -> Iterator[str]:
    """Return the lines of a Markdown table."""
    listed = list(listed)
    headings, rows = _columns(listed)
    yield _markdown_row(headings)
    yield _markdown_row(["---"] * len(headings))
    for row in rows:
        yield _markdown_row(_markdown_cells(row))
    if tiers := [f"- {escape_markdown(text, 1_000)}" for text in _tiers(listed)]:
        yield from ("", *tiers)
    for comparison in compared(listed):
        yield ""
        yield escape_markdown(f"Variants of {comparison.model}", 1_000)
        yield ""
        yield _markdown_row(VARIANT_HEADINGS)
        yield _markdown_row(["---"] * len(VARIANT_HEADINGS))
        yield from (
            _markdown_row(_markdown_cells(variant_cells(each))) for each in comparison.variants
        )


def as_json(listed: Iterable[Entry], past: ModelHistory | None) -> str:
    """Return JSON in ASCII, so that no name can contain terminal sequences."""
    models = [_object(entry, past) for entry in listed]
    return json.dumps({"schema": LIST_SCHEMA, "models": models}, indent=2)


def _cells(entry: Entry) -> list[TableCell]:
    model, known = entry.model, entry.known
    tested = known.last_tested
    return [
        model.id,
        model.engine,
        shown_host(known.host) if tested else NOTHING,
        file_size(model.size_bytes),
        file_size(known.estimated_memory_bytes),
        tokens(model.context_limit),
        tokens(known.verified_context),
        ANY_SIZE if known.fails_at_any_size else tokens(known.smallest_bad),
        (entry.status, STATUS_STYLES.get(entry.status, "")),
        _since_cell(entry.since),
        seconds(known.ttft_seconds),
        rate(known.decode_tokens_per_second),
        f"{tested:%Y-%m-%d %H:%M}" if tested else NOTHING,
        capabilities_text(model.capabilities, known.capability_proofs),
    ]


def _since_cell(since: Since | None) -> TableCell:
    if since is None:
        return NOTHING
    broken = since.state == "broken" and since.accepted is None
    return short_text(since), "red" if broken else ""


def _past_cells(result: Result) -> list[TableCell]:
    colour = {"passed": "green", "xfailed": "yellow", "skipped": "yellow"}.get(result.outcome)
    remarks = ["imported"] if result.imported else []
    if result.verdict is not Verdict.OK:
        remarks.append(result.detail)
    return [
        f"{result.at:%Y-%m-%d %H:%M}",
        result.check,
        shown_host(result.host),
        tokens(result.context_length),
        (result.verdict.value, colour or "red"),
        rate(result.decode_tokens_per_second),
        ": ".join(filter(None, remarks)),
    ]


def _object(entry: Entry, past: ModelHistory | None) -> dict[str, Any]:
    found = {name: getattr(entry.model, name) for name in _FROM_MODEL}
    found |= {"type": entry.model.type or "llm", "status": entry.status}
    found |= {name: getattr(entry.known, name) for name in _FROM_REGISTRY}
    found["since"] = entry.since
    if past is not None:
        found["history"] = past[entry.model.id]
    plain: dict[str, Any] = msgspec.to_builtins(found)
    return plain


def _markdown_cells(cells: Iterable[TableCell]) -> list[str]:
    texts = (cell if isinstance(cell, str) else cell[0] for cell in cells)
    return [escape_markdown(text, 1_000) for text in texts]


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
