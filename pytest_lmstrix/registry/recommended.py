"""The context length to set in other programs: the largest one verified on one machine."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.known import Known, VerifyingCheck, of_setup, of_weights, proof_of


class Recommendation(Struct, frozen=True, kw_only=True):
    """A context length that is verified on one machine, and its proof."""

    model: str
    context_length: int
    """The largest verified one, in tokens."""
    check: VerifyingCheck
    at: datetime
    """Time of the proof, UTC."""
    engine: str
    engine_version: str | None
    machine: str
    fingerprint: str
    """Identifies the weights it was verified with."""
    settings: str
    """The load settings it was verified with, as in a `Result`."""


def recommend(
    model: str,
    known: Iterable[Known],
    *,
    machine: str,
    check: VerifyingCheck | None = None,
    fingerprint: str | None = None,
    engine: str | None = None,
    settings: str | None = None,
) -> Recommendation | None:
    """Return the largest size verified on `machine` with one engine, weights and settings.

    Those that are not given are those of the newest of the `known` results, which come first. An
    unknown machine or unknown weights can prevent a verified size, but not verify one.
    """
    lines = [
        line
        for line in of_setup(known, engine, settings)
        if line.machine == machine or (line.machine is None and line.verdict is not Verdict.OK)
    ]
    if not lines:
        return None
    lines = of_setup(lines, lines[0].engine, lines[0].settings)
    fingerprint, lines = of_weights(lines, fingerprint)
    proof = proof_of(lines, check)
    if proof is None or fingerprint is None or lines[0].verdict.evidence == "model":
        return None  # by the last verdict, the weights may be missing or corrupted
    best, verified_check = proof
    return Recommendation(
        model=model,
        context_length=best.context_length,
        check=verified_check,
        at=best.at,
        engine=best.engine,
        engine_version=best.engine_version,
        machine=machine,
        fingerprint=fingerprint,
        settings=best.settings,
    )
