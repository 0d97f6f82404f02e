"""The fold over the registry's lines: the status of each model.

The newest line is the last one in the file, whatever its date: a line with a wrong date must not
outrank later ones. `core.verdicts.Traits` describes the evidence of each verdict. Every line,
except those of evidence `none`, replaces the one before it with the same check and size. A `limit`
line counts as `full` at the size that it found. An `ok` in `full`, `limit` or `deep` also replaces
an earlier `fast` verdict at the same size. A search line that failed explains the failure that
caused the search: a later pass at a larger size outdates it. Users' own checks and `capability`
never decide whether a size works. A `host_trouble` line is not about the model: it withdraws what
the same run recorded before of the same check and size, and what earlier runs recorded stands
again. Imported lines are only counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from operator import itemgetter

from msgspec import Struct
from msgspec.structs import replace

from pytest_lmstrix.core.types import ANY_SIZE, Origin, Proof, Result
from pytest_lmstrix.core.verdicts import TRAITS, Status, Verdict
from pytest_lmstrix.registry.known import (
    VERIFYING,
    DeepTiers,
    Known,
    Size,
    VerifyingCheck,
    by_size,
    current,
    largest_proof,
    of_setup,
    of_weights,
    tiers_of,
)

_OF_HOSTS = (Verdict.UNREACHABLE, Verdict.HOST_TROUBLE)
_MAY_BE_WITHDRAWN = (Verdict.ENGINE_ERROR, Verdict.CRASHED, Verdict.TIMEOUT)


class _Mark(Struct, frozen=True, gc=False):
    """The fields kept of a line besides its key; small, since there may be a million."""

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
    peak_memory_bytes: int | None
    estimated_memory_bytes: int | None
    tiers: Mapping[str, bool] | None = None
    any_size: bool = False
    capabilities: dict[str, Proof] | None = None
    run: str = ""
    """Of a verdict that may be withdrawn."""
    before: _Mark | None = None
    """The mark of earlier runs, where this one may be withdrawn."""


_Setup = tuple[str, str, str | None, str | None, str, str]
"""Model, engine, host, fingerprint, settings, check."""


class ModelStatus(Struct, frozen=True, kw_only=True):
    """The status of a model with one fingerprint; `None` is unknown. Sizes in tokens."""

    model: str
    status: Status
    """By the newest verdicts: `missing` or `corrupted` after such a verdict, else `completed` when
    any size works, `failed` when all fail, `untested` when no verdict could be reached."""
    fingerprint: str | None = None
    verified_context: int | None = None
    """The largest size whose newest verdict is `ok` in `full` or `deep`, nothing smaller failing
    in any check."""
    verified_check: VerifyingCheck | None = None
    """The check that verified it; `deep` when both did."""
    tiers: DeepTiers | None = None
    """What `deep` has shown besides; `None` if no size was asked."""
    largest_good: int | None = None
    """The largest size that works in `full` or `deep`, even if a smaller one fails."""
    smallest_bad: int | None = None
    smallest_bad_verdict: Verdict | None = None
    fails_at_any_size: bool = False
    verdict: Verdict | None = None
    """The newest verdict of all."""
    last_tested: datetime | None = None
    host: str | None = None
    """Where that was."""
    load_seconds: float | None = None
    """This and the speeds were measured at the verified context."""
    ttft_seconds: float | None = None
    decode_tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    """Measured there."""
    estimated_memory_bytes: int | None = None
    """Planned by the engine before that load."""
    capability_proofs: dict[str, Proof] = {}
    """What `capability` found last."""
    imported: int = 0
    """Number of results imported from another tool, which decide nothing of the above."""


class Fold:
    """Accumulates results, in the order of the file."""

    def __init__(self) -> None:
        self._models: dict[str, dict[_Setup, dict[int, _Mark]]] = {}
        self._setup: _Setup | None = None
        self._sizes: dict[int, _Mark] = {}
        self._imported: dict[str, Counter[str]] = {}
        """Model -> engine -> number of results."""
        self.count = 0
        """Results so far."""

    def add(self, line: Result) -> None:
        """Add the next result."""
        self.count += 1
        if line.imported:
            self._imported.setdefault(line.model, Counter())[line.engine] += 1
            return
        verdict = line.verdict
        if verdict in _OF_HOSTS:
            self._withdraw(line)
            return
        setup = _setup(line)
        if setup != self._setup:  # consecutive lines mostly have the same setup
            self._setup = setup
            self._sizes = self._models.setdefault(line.model, {}).setdefault(setup, {})
        run, before = "", None
        if verdict in _MAY_BE_WITHDRAWN:
            run, before = line.run, self._sizes.get(line.context_length)
            if before is not None and before.run:
                before = before.before if before.run == run else replace(before, before=None)
        self._sizes[line.context_length] = _Mark(
            self.count,
            verdict,
            line.at,
            line.engine_version,
            line.machine,
            line.check_version,
            line.origin,
            line.load_seconds,
            line.ttft_seconds,
            line.decode_tokens_per_second,
            line.peak_memory_bytes,
            line.estimated_memory_bytes,
            line.tiers,
            ANY_SIZE in line.notes,
            line.capabilities,
            run,
            before,
        )

    def _withdraw(self, line: Result) -> None:
        """Remove what the run of `line` recorded before at its size, if `host_trouble`."""
        sizes = self._models.setdefault(line.model, {}).get(_setup(line), {})
        mark = sizes.get(line.context_length)
        if line.verdict is Verdict.HOST_TROUBLE and mark is not None and mark.run == line.run:
            if mark.before is None:
                del sizes[line.context_length]
            else:
                sizes[line.context_length] = mark.before

    def models(self) -> tuple[str, ...]:
        """Return every model that has a line; those with imported lines alone come last."""
        return tuple(dict.fromkeys((*self._models, *self._imported)))

    def known(self, model: str) -> tuple[Known, ...]:
        """Return all newest verdicts of `model`, newest first."""
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
        """Return the status of `model`, or `None` when it has no line.

        Only `check` can verify a size, or both checks if it is `None`. `fingerprint` defaults to
        the newest one seen. `engine` and `settings` exclude results of others.
        """
        imported = self._count_imported(model, engine)
        if model not in self._models:
            if not imported:
                return None
            return ModelStatus(model=model, status="untested", imported=imported)
        lines = of_setup(self.known(model), engine, settings)
        fingerprint, lines = of_weights(lines, fingerprint)
        if not lines:
            return ModelStatus(
                model=model, status="untested", fingerprint=fingerprint, imported=imported
            )
        sizes = by_size(current(lines))
        good = [size for size, line in sizes.items() if line.verdict is Verdict.OK]
        bad = min((size for size in sizes if sizes[size].verdict.evidence == "bad"), default=None)
        proof = largest_proof(sizes, [size for size in good if check in (None, size.check)])
        best = sizes[proof] if proof else None
        return ModelStatus(
            model=model,
            status=_status(lines, sizes),
            fingerprint=fingerprint,
            verified_context=best.context_length if best else None,
            verified_check=VERIFYING[proof.check] if proof else None,
            tiers=tiers_of(sizes),
            largest_good=max(
                (size.tokens for size in good if size.check in VERIFYING), default=None
            ),
            smallest_bad=bad.tokens if bad else None,
            smallest_bad_verdict=sizes[bad].verdict if bad else None,
            fails_at_any_size=not good and any(line.any_size for line in sizes.values()),
            verdict=lines[0].verdict,
            last_tested=lines[0].at,
            host=lines[0].host,
            load_seconds=best.load_seconds if best else None,
            ttft_seconds=best.ttft_seconds if best else None,
            decode_tokens_per_second=best.decode_tokens_per_second if best else None,
            peak_memory_bytes=best.peak_memory_bytes if best else None,
            estimated_memory_bytes=best.estimated_memory_bytes if best else None,
            capability_proofs=next((each.capabilities for each in lines if each.capabilities), {}),
            imported=imported,
        )

    def _count_imported(self, model: str, engine: str | None) -> int:
        engines = self._imported.get(model, Counter())
        return engines.total() if engine is None else engines[engine]


def _setup(line: Result) -> _Setup:
    return line.model, line.engine, line.host, line.fingerprint, line.settings, line.check


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
        any_size=mark.any_size,
        capabilities=mark.capabilities,
        load_seconds=mark.load_seconds,
        ttft_seconds=mark.ttft_seconds,
        decode_tokens_per_second=mark.decode_tokens_per_second,
        peak_memory_bytes=mark.peak_memory_bytes,
        estimated_memory_bytes=mark.estimated_memory_bytes,
        tiers=mark.tiers,
    )


def _status(lines: list[Known], sizes: dict[Size, Known]) -> Status:
    if lines[0].verdict.evidence == "model":
        return TRAITS[lines[0].verdict].status
    verdicts = {line.verdict for line in sizes.values() or lines}
    if Verdict.OK in verdicts:
        return "completed"
    return "untested" if verdicts == {Verdict.INCONCLUSIVE} else "failed"
