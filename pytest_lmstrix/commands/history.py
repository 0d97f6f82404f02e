"""`--lmstrix-history` and `--lmstrix-accept`: since when models work; asks no engine."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from pytest_lmstrix.core.formatting import rate, tokens
from pytest_lmstrix.core.sanitize import escape_markdown, one_line
from pytest_lmstrix.core.table import Paint, TableCell, prose, table
from pytest_lmstrix.core.types import Acceptance, Model, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.fold import Fold
from pytest_lmstrix.registry.history.earlier import History
from pytest_lmstrix.registry.history.since import Since, since_text
from pytest_lmstrix.registry.regressions import compare_speeds
from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.system.addresses import remote_host

HISTORY_SCHEMA = 1
"""Increased when a JSON key is removed or changes its meaning; new keys do not count."""
_HEADINGS = ("from", "to", "engine", "runs", "verdict", "verified", "decode", "prefill")
_EXPENDABLE = ("runs", "prefill", "to", "verified", "decode", "engine")


class Period(Struct, frozen=True, kw_only=True):
    """Consecutive results with one engine version, at one place, of the same weights."""

    engine: str
    engine_version: str | None
    machine: str | None
    host: str | None
    fingerprint: str | None
    settings: str
    first: datetime
    last: datetime
    runs: int
    verdict: Verdict
    """The worst of the last run: that of its smallest failing size."""
    verified_context: int | None
    """At the end of the period; tokens."""
    decode_tokens_per_second: float | None
    """Median."""
    prefill_tokens_per_second: float | None
    """Median."""


class ModelTimeline(Struct, frozen=True, kw_only=True):
    """The history of one model."""

    model: str
    since: tuple[Since, ...]
    """The newest first."""
    periods: tuple[Period, ...]
    """By their first results, oldest first."""


def histories(models: Iterable[Model], registry: Registry) -> list[ModelTimeline]:
    """Return the histories of `models`, reading the registry once."""
    results: dict[str, list[Result]] = {model.id: [] for model in models}
    for result in registry.results():
        if result.model in results and result.verdict.subject in ("model", "size"):
            results[result.model].append(result)
    return [
        ModelTimeline(model=model, since=registry.since(model), periods=tuple(_periods(lines)))
        for model, lines in results.items()
    ]


def acceptances(models: Iterable[Model], registry: Registry) -> list[Acceptance]:
    """Return an acceptance for each of the models with a regression that was not accepted.

    It is broken, or its newest results are slower than earlier ones.
    """
    at, by = datetime.now(UTC), user_name()
    ids = [model.id for model in models]
    slower = _slower(ids, registry)
    return [
        Acceptance(at=at, by=by, model=model)
        for model in ids
        if model in slower
        or any(
            since.state == "broken" and since.accepted is None for since in registry.since(model)
        )
    ]


def _slower(models: Iterable[str], registry: Registry) -> set[str]:
    """Return the models whose newest run was slower than those before."""
    last_run = dict.fromkeys(models, "")
    for result in registry.results():
        if result.model in last_run and not result.imported:
            last_run[result.model] = result.run
    history, newest = History(), dict[str, list[Result]]()
    for line in registry.lines():
        if isinstance(line, Acceptance):
            history.accept(line)
        elif line.run == last_run.get(line.model):
            newest.setdefault(line.model, []).append(line)
        elif line.model in last_run:
            history.add(line)
    return {
        model
        for model, results in newest.items()
        if any(change.is_regression for change in compare_speeds(results, history))
    }


def user_name() -> str:
    """Return the name of the user, or `unknown` if the system has none."""
    try:
        return one_line(getpass.getuser(), 100)
    except (OSError, KeyError, ImportError):
        return "unknown"


def history_text(
    found: Sequence[ModelTimeline], *, paint: Paint, width: int | None
) -> Iterator[str]:
    """Return the lines of all histories."""
    for number, each in enumerate(found):
        if number:
            yield ""
        yield one_line(each.model)
        yield from prose(_sentences(each), paint=paint, width=width)
        if each.periods:
            rows = [_cells(period) for period in each.periods]
            room = None if width is None else width - 2
            lines = table(_HEADINGS, rows, paint=paint, width=room,
                          left=("to", "engine", "verdict"), expendable=_EXPENDABLE)  # fmt: skip
            yield from (f"  {line}" for line in lines)


def history_markdown(found: Iterable[ModelTimeline]) -> Iterator[str]:
    """Return the lines of a section for each model."""
    for each in found:
        yield f"## {escape_markdown(each.model, 1_000)}"
        yield ""
        for _, cell in _sentences(each):
            yield f"- {escape_markdown(cell if isinstance(cell, str) else cell[0], 1_000)}"
        yield ""
        if each.periods:
            yield f"| {' | '.join(_HEADINGS)} |"
            yield f"|{' --- |' * len(_HEADINGS)}"
        for period in each.periods:
            texts = (cell if isinstance(cell, str) else cell[0] for cell in _cells(period))
            yield f"| {' | '.join(escape_markdown(text, 1_000) for text in texts)} |"
        if each.periods:
            yield ""


def history_json(found: Iterable[ModelTimeline]) -> str:
    """Return JSON in ASCII, so that no name can contain terminal sequences."""
    models: list[dict[str, Any]] = []
    for each in found:
        plain = msgspec.to_builtins(each)
        for since, object_ in zip(each.since, plain["since"], strict=True):
            object_["seconds"] = since.seconds
        models.append(plain)
    return json.dumps({"schema": HISTORY_SCHEMA, "models": models}, indent=2)


def history_html(registry: Registry, reports: Path, selected: str) -> Path:
    """Write the page of all nights, made of the registry alone, and return its path.

    Raises:
        pytest.UsageError: Models were `selected`, or it cannot be written.
    """
    if selected:
        raise pytest.UsageError(
            "--lmstrix-format=html shows all models; leave out the model and -k"
        )
    from pytest_lmstrix.reports.nights.write import INDEX, write_index

    try:
        return write_index(registry, reports, made=datetime.now(UTC))
    except OSError as error:
        reason = error.strerror or str(error)
        raise pytest.UsageError(f"{reports / INDEX} cannot be written: {reason}") from None


def _sentences(each: ModelTimeline) -> list[list[TableCell]]:
    """Return one row for each check of the newest weights, with its place if there are several."""
    if not each.since:
        return [["", "not tested yet"]]
    weights = each.since[0].fingerprint
    shown = [since for since in each.since if since.fingerprint == weights]
    places = {(since.engine, since.machine, since.host, since.settings) for since in shown}
    return [["", _sentence(since, several=len(places) > 1)] for since in shown]


def _sentence(since: Since, *, several: bool) -> TableCell:
    broken = since.state == "broken" and since.accepted is None
    place = ", ".join(filter(None, (since.engine, since.host, since.machine, since.settings)))
    where = f" ({place})" if several else ""
    today: date = datetime.now(UTC).date()
    return f"{since.check}{where}: {since_text(since, today=today)}", "red" if broken else ""


def _cells(period: Period) -> list[TableCell]:
    passed = period.verdict is Verdict.OK
    return [
        f"{period.first:%Y-%m-%d}",
        f"{period.last:%Y-%m-%d}",
        " ".join(filter(None, (period.engine, period.engine_version, period.host))),
        f"{period.runs:,}",
        (period.verdict.value, "green" if passed else "red"),
        tokens(period.verified_context),
        rate(period.decode_tokens_per_second),
        rate(period.prefill_tokens_per_second),
    ]


def _periods(results: Iterable[Result]) -> list[Period]:
    """Split the results of a model, oldest first, where the version of their setup changes."""
    setups: dict[tuple[object, ...], list[list[Result]]] = {}
    for result in results:
        setup = (result.engine, result.machine, remote_host(result.host), result.fingerprint,
                 result.settings)  # fmt: skip
        groups = setups.setdefault(setup, [])
        if not groups or groups[-1][-1].engine_version != result.engine_version:
            groups.append([])
        groups[-1].append(result)
    found = [
        period
        for groups in setups.values()
        for period in (_period(*pair) for pair in zip(groups, _verified(groups), strict=True))
    ]
    return sorted(found, key=lambda period: period.first)


def _period(results: Sequence[Result], verified: int | None) -> Period:
    newest = results[-1]
    last_run = [each for each in results if each.run == newest.run and each.origin == "case"]
    bad = [each for each in last_run if each.verdict is not Verdict.OK]
    judged = last_run[-1] if last_run else newest
    worst = min(bad, key=lambda each: each.context_length) if bad else judged
    return Period(
        engine=newest.engine,
        engine_version=newest.engine_version,
        machine=newest.machine,
        host=remote_host(newest.host),
        fingerprint=newest.fingerprint,
        settings=newest.settings,
        first=results[0].at,
        last=newest.at,
        runs=len({each.run for each in results}),
        verdict=worst.verdict,
        verified_context=verified,
        decode_tokens_per_second=_median(each.decode_tokens_per_second for each in results),
        prefill_tokens_per_second=_median(each.prefill_tokens_per_second for each in results),
    )


def _verified(groups: Sequence[Sequence[Result]]) -> Iterator[int | None]:
    """Yield the verified context after each of the groups."""
    fold = Fold()
    for group in groups:
        for result in group:
            fold.add(result)
        status = fold.status(group[0].model, fingerprint=group[0].fingerprint)
        yield status.verified_context if status else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
