"""The fold over the registry's lines: the status of each model.

The newest line is the last one in the file, whatever its date: a clock that was wrong once must
not outrank later lines. `core.verdicts.Traits` describes what each verdict counts for. Every line
but those of evidence `none` replaces the one before it with the same check and size. A `limit`
line counts as `full` at the size that it found. An `ok` in `full`, `limit` or `deep` also replaces
an earlier `fast` verdict at the same size. A search line that failed explains the failure that
caused the search: a later pass at a larger size outdates it. Users' own checks never decide
whether a size works.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from operator import itemgetter
from typing import Literal, NamedTuple

from msgspec import Struct

from pytest_lmstrix.core.checks import CHECKS, evidence_of
from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH, Origin, Result
from pytest_lmstrix.core.verdicts import TRAITS, Status, Verdict

VerifyingCheck = Literal["full", "deep"]

_UNREACHABLE = Verdict.UNREACHABLE  # looking it up takes a sixth of `Fold.add`
_VERIFYING: dict[str, VerifyingCheck] = {"full": "full", "deep": "deep"}


class _Size(NamedTuple):
    tokens: int
    check: str


class Known(Struct, frozen=True, kw_only=True):
    """The newest verdict of one check at one size, with one engine, host, weights and settings."""

    engine: str
    host: str | None
    fingerprint: str | None
    settings: str
    check: str
    context_length: int
    verdict: Verdict
    at: datetime
    engine_version: str | None
    machine: str | None
    check_version: int
    load_seconds: float | None
    ttft_seconds: float | None
    decode_tokens_per_second: float | None
    origin: Origin = "case"


class _Mark(Struct, frozen=True, gc=False):
    """What is kept of a line besides its key: there may be a million."""

    order: int
    verdict: Verdict
    at: datetime
    engine_version: str | None
    machine: str | None
    check_version: int
    origin: Origin
    load_seconds: float | None
    ttft_seconds: float | None
    decode_tokens_per_second: float | None


_Setup = tuple[str, str, str | None, str | None, str, str]
"""Model, engine, host, fingerprint, settings, check."""


class ModelStatus(Struct, frozen=True, kw_only=True):
    """What is known of a model with one fingerprint; `None` is not known. Sizes in tokens."""

    model: str
    status: Status
    """By the newest verdicts: `missing` or `corrupted` when the last one said so, else `completed`
    when any size works, `failed` when all fail, `untested` when nothing was judged."""
    fingerprint: str | None = None
    verified_context: int | None = None
    """The largest size whose newest verdict is `ok` in `full` or `deep`, nothing smaller failing
    in any check."""
    verified_check: VerifyingCheck | None = None
    """The check that shows it; `deep` where both do."""
    largest_good: int | None = None
    """Works in `full` or `deep`, whatever smaller sizes do."""
    smallest_bad: int | None = None
    smallest_bad_verdict: Verdict | None = None
    verdict: Verdict | None = None
    """The newest of all."""
    last_tested: datetime | None = None
    load_seconds: float | None = None
    """This and the speeds were measured at the verified context."""
    ttft_seconds: float | None = None
    decode_tokens_per_second: float | None = None


class Fold:
    """Adds up results, in the order of the file."""

    def __init__(self) -> None:
        self._models: dict[str, dict[_Setup, dict[int, _Mark]]] = {}
        self._setup: _Setup | None = None
        self._sizes: dict[int, _Mark] = {}
        self.count = 0
        """Results so far."""

    def add(self, line: Result) -> None:
        """Count in the next result."""
        self.count += 1
        if line.verdict is _UNREACHABLE:
            self._models.setdefault(line.model, {})
            return
        setup = (
            line.model,
            line.engine,
            line.host,
            line.fingerprint,
            line.settings,
            line.check,
        )
        if setup != self._setup:  # the sizes of a model mostly follow each other
            self._setup = setup
            self._sizes = self._models.setdefault(line.model, {}).setdefault(setup, {})
        self._sizes[line.context_length] = _Mark(
            self.count,
            line.verdict,
            line.at,
            line.engine_version,
            line.machine,
            line.check_version,
            line.origin,
            line.load_seconds,
            line.ttft_seconds,
            line.decode_tokens_per_second,
        )

    def models(self) -> tuple[str, ...]:
        """Every model that has a line, in the order of their first."""
        return tuple(self._models)

    def known(self, model: str) -> tuple[Known, ...]:
        """All newest verdicts of `model`, the newest first."""
        marks = [
            (mark.order, setup, size, mark)
            for setup, sizes in self._models.get(model, {}).items()
            for size, mark in sizes.items()
        ]
        marks.sort(key=itemgetter(0), reverse=True)
        return tuple(_known(setup, size, mark) for _, setup, size, mark in marks)

    def status(
        self,
        model: str,
        *,
        check: VerifyingCheck | None = None,
        fingerprint: str | None = None,
        engine: str | None = None,
        settings: str | None = None,
    ) -> ModelStatus | None:
        """What is known of `model`, or `None` when no line names it.

        `check` is the only one that may verify, unless both may. `fingerprint` is the newest one
        seen, unless given. `engine` and `settings` leave out what was found with others.
        """
        if model not in self._models:
            return None
        lines = [
            line
            for line in self.known(model)
            if engine in (None, line.engine) and settings in (None, line.settings)
        ]
        if fingerprint is None:
            fingerprint = next((line.fingerprint for line in lines if line.fingerprint), None)
        # Unknown weights may be these: that can bar a pass, never make one.
        lines = [
            line
            for line in lines
            if line.fingerprint == fingerprint
            or (line.fingerprint is None and line.verdict is not Verdict.OK)
        ]
        if not lines:
            return ModelStatus(model=model, status="untested", fingerprint=fingerprint)
        sizes = _by_size(current(lines))
        good = [size for size, line in sizes.items() if line.verdict is Verdict.OK]
        bad = min((size for size in sizes if sizes[size].verdict.evidence == "bad"), default=None)
        proof = _proof(sizes, [size for size in good if check in (None, size.check)])
        shown = sizes[proof] if proof else None
        return ModelStatus(
            model=model,
            status=_status(lines, sizes),
            fingerprint=fingerprint,
            verified_context=shown.context_length if shown else None,
            verified_check=_VERIFYING[proof.check] if proof else None,
            largest_good=max(
                (size.tokens for size in good if size.check in _VERIFYING), default=None
            ),
            smallest_bad=bad.tokens if bad else None,
            smallest_bad_verdict=sizes[bad].verdict if bad else None,
            verdict=lines[0].verdict,
            last_tested=lines[0].at,
            load_seconds=shown.load_seconds if shown else None,
            ttft_seconds=shown.ttft_seconds if shown else None,
            decode_tokens_per_second=shown.decode_tokens_per_second if shown else None,
        )


def current(newest_first: Iterable[Known]) -> Iterator[Known]:
    """Leave out the failed search lines that a later pass at a larger size outdates."""
    works = 0
    for line in newest_first:
        passed = line.verdict is Verdict.OK
        if line.origin == "search" and not passed and line.context_length < works:
            continue
        if passed and evidence_of(line.check) in _VERIFYING:
            works = max(works, line.context_length)
        yield line


def _known(setup: _Setup, size: int, mark: _Mark) -> Known:
    _, engine, host, fingerprint, settings, check = setup
    return Known(
        engine=engine,
        host=host,
        fingerprint=fingerprint,
        settings=settings,
        check=check,
        context_length=size,
        verdict=mark.verdict,
        at=mark.at,
        engine_version=mark.engine_version,
        machine=mark.machine,
        check_version=mark.check_version,
        origin=mark.origin,
        load_seconds=mark.load_seconds,
        ttft_seconds=mark.ttft_seconds,
        decode_tokens_per_second=mark.decode_tokens_per_second,
    )


def _by_size(lines: Iterable[Known]) -> dict[_Size, Known]:
    """The newest verdict of each built-in check at each size, from lines that come newest first."""
    sizes: dict[_Size, Known] = {}
    for line in lines:
        if line.check not in CHECKS:
            continue
        check = evidence_of(line.check)
        size = _Size(line.context_length, check)
        settled = check == "fast" and any(
            (newer := sizes.get(_Size(size.tokens, stronger))) and newer.verdict is Verdict.OK
            for stronger in _VERIFYING
        )
        if not settled:
            sizes.setdefault(size, line)
    return sizes


def _proof(sizes: dict[_Size, Known], good: list[_Size]) -> _Size | None:
    """The largest good size below which nothing fails; `deep` where `full` shows it too."""
    bar = min(
        (size.tokens for size in sizes if sizes[size].verdict.evidence in ("bad", "open")),
        default=MAX_CONTEXT_LENGTH,
    )
    return max(
        (size for size in good if size.check in _VERIFYING and size.tokens <= bar),
        key=lambda size: (size.tokens, size.check == "deep"),
        default=None,
    )


def _status(lines: list[Known], sizes: dict[_Size, Known]) -> Status:
    if lines[0].verdict.evidence == "model":
        return TRAITS[lines[0].verdict].status
    verdicts = {line.verdict for line in sizes.values() or lines}
    if Verdict.OK in verdicts:
        return "completed"
    return "untested" if verdicts == {Verdict.INCONCLUSIVE} else "failed"
