"""Formats numbers for people: token counts, times, rates; `-` for unknown values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pytest_lmstrix.core.types import Proof, Result
from pytest_lmstrix.core.verdicts import Verdict

NOTHING = "-"


def count_of(count: int, thing: str) -> str:
    """Return `1 model`, `2 models`."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def tokens(count: int | None) -> str:
    return NOTHING if count is None else f"{count:,}"


def verdict_text(verdict: Verdict, results: Sequence[Result]) -> str:
    """Return the verdict, the answer of `limit` and the kinds of notes of `results`.

    Such as `ok, slow, retried` or `ok, 44,955`.
    """
    names = [
        tokens(result.context_length)
        for result in results
        if verdict is result.verdict is Verdict.OK
        and (result.check, result.origin) == ("limit", "case")
    ]
    names += [note.partition(":")[0] for result in results for note in result.notes]
    if any(result.retried and result.verdict is Verdict.OK for result in results):
        names.append("retried")
    return ", ".join([verdict.value, *dict.fromkeys(names)])


def capabilities_text(declared: Iterable[str], proofs: Mapping[str, Proof]) -> str:
    """Return what is declared and what is proven: `tools proven, vision failed, audio declared`.

    Capabilities that an engine claims after a load, and no listing, are only among the proofs.
    """
    names = dict.fromkeys((*declared, *proofs))
    return ", ".join(f"{name} {proofs.get(name, 'declared')}" for name in names) or NOTHING


def seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f} s"


def rate(per_second: float | None) -> str:
    return NOTHING if per_second is None else f"{per_second:.1f}"


def memory(size_bytes: int | None) -> str:
    return NOTHING if size_bytes is None else f"{size_bytes / 1e9:.2f} GB"


def file_size(count: int | None) -> str:
    """Return a size such as `93 MB`, `2.0 GB`."""
    if count is None:
        return NOTHING
    return f"{count / 1e6:,.0f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def duration(value: float) -> str:
    """Return `12 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
