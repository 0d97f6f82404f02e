"""The newest verdicts of a model at each size, and which of them verifies one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from msgspec import Struct

from pytest_lmstrix.core.checks import TIERS, evidence_of, judges_size
from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH, Origin, Proof
from pytest_lmstrix.core.verdicts import Verdict

VerifyingCheck = Literal["full", "deep"]

VERIFYING: dict[str, VerifyingCheck] = {"full": "full", "deep": "deep"}


class Size(NamedTuple):
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
    any_size: bool = False
    """Whether a smaller load failed in the same way."""
    peak_memory_bytes: int | None = None
    estimated_memory_bytes: int | None = None
    capabilities: dict[str, Proof] | None = None
    tiers: Mapping[str, bool] | None = None


class DeepTiers(Struct, frozen=True, kw_only=True):
    """The largest sizes that `deep` has shown, with nothing smaller failing; in tokens."""

    reach: int
    """All that was hidden is recalled: the verdict."""
    resist: int | None = None
    """Facts are not confused with rivals of the same wording either."""
    follow: int | None = None
    """The fact that another one names is found too."""

    @property
    def text(self) -> str:
        """Return `reach 120,000, resist 32,000, follow 16,000`, without what is not claimed."""
        found = (("reach", self.reach), ("resist", self.resist), ("follow", self.follow))
        return ", ".join(f"{name} {size:,}" for name, size in found if size is not None)


def tiers_of(sizes: Mapping[Size, Known]) -> DeepTiers | None:
    """Return the tiers of the newest verdicts, `None` if no size was asked for any."""
    deep = sorted((size.tokens, line) for size, line in sizes.items() if size.check == "deep")
    failed = (size for size, line in deep if line.verdict.evidence in ("bad", "open"))
    bar = next(failed, MAX_CONTEXT_LENGTH + 1)
    good = [(size, line) for size, line in deep if line.verdict is Verdict.OK and size < bar]
    if not any(line.tiers for _, line in good):
        return None
    return DeepTiers(reach=good[-1][0], **{tier: _largest(good, tier) for tier in TIERS})


def _largest(good: Iterable[tuple[int, Known]], tier: str) -> int | None:
    """Return the largest size that passed `tier`, with nothing smaller failing; ascending."""
    found = None
    for size, line in good:
        shown = (line.tiers or {}).get(tier)
        if shown is False:
            break
        found = size if shown else found
    return found


def of_setup(lines: Iterable[Known], engine: str | None, settings: str | None) -> list[Known]:
    """Return the lines with this engine and these settings; `None` matches any."""
    return [
        line
        for line in lines
        if engine in (None, line.engine) and settings in (None, line.settings)
    ]


def of_weights(lines: list[Known], fingerprint: str | None) -> tuple[str | None, list[Known]]:
    """Return the fingerprint, by default the newest one, and the lines with these weights."""
    if fingerprint is None:
        fingerprint = next((line.fingerprint for line in lines if line.fingerprint), None)
    # Unknown weights may be the same: they can prevent a verified size, but not verify one.
    return fingerprint, [
        line
        for line in lines
        if line.fingerprint == fingerprint
        or (line.fingerprint is None and line.verdict is not Verdict.OK)
    ]


def proof_of(
    lines: Iterable[Known], check: VerifyingCheck | None
) -> tuple[Known, VerifyingCheck] | None:
    """Return the result that verifies the largest size, and its check; lines are newest first."""
    sizes = by_size(current(lines))
    good = [size for size, line in sizes.items() if line.verdict is Verdict.OK]
    proof = largest_proof(sizes, [size for size in good if check in (None, size.check)])
    return (sizes[proof], VERIFYING[proof.check]) if proof else None


def current(newest_first: Iterable[Known]) -> Iterator[Known]:
    """Yield the lines without failed search lines that a later pass at a larger size outdates."""
    works = 0
    for line in newest_first:
        passed = line.verdict is Verdict.OK
        if line.origin == "search" and not passed and line.context_length < works:
            continue
        if passed and evidence_of(line.check) in VERIFYING:
            works = max(works, line.context_length)
        yield line


def by_size(lines: Iterable[Known]) -> dict[Size, Known]:
    """Return the newest verdict at each size of each check of sizes; lines are newest first."""
    sizes: dict[Size, Known] = {}
    for line in lines:
        if not judges_size(line.check):
            continue
        check = evidence_of(line.check)
        size = Size(line.context_length, check)
        settled = check == "fast" and any(
            (newer := sizes.get(Size(size.tokens, stronger))) and newer.verdict is Verdict.OK
            for stronger in VERIFYING
        )
        if not settled:
            sizes.setdefault(size, line)
    return sizes


def largest_proof(sizes: dict[Size, Known], good: list[Size]) -> Size | None:
    """Return the largest good size below which nothing fails; `deep` rather than `full`."""
    bar = min(
        (size.tokens for size in sizes if sizes[size].verdict.evidence in ("bad", "open")),
        default=MAX_CONTEXT_LENGTH,
    )
    return max(
        (size for size in good if size.check in VERIFYING and size.tokens <= bar),
        key=lambda size: (size.tokens, size.check == "deep"),
        default=None,
    )
