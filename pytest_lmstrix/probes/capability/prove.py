"""The probe of `capability`: what is declared of a model is shown, or it fails."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import ProbeResult, Proof
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.request import Unable
from pytest_lmstrix.probes.capability.abilities import (
    ABILITIES,
    PARALLEL_ABILITY,
    SCHEMA_ABILITY,
    TOOLS_ABILITY,
    Chats,
    Trouble,
    Way,
    budget,
    trouble_of,
)

LEAST_CONTEXT = 2_048
"""Tools, a question and an answer have room in it; tokens."""
DOES_NOT_HOLD = "declared, but it does not hold"
NOTHING_DECLARED = "nothing is declared of this model that can be shown"
_WORST_FIRST = (Verdict.WRONG_ANSWER, Verdict.EMPTY_REPLY, Verdict.NO_ANSWER_IN_BUDGET)


class Claims(Chats, Protocol):
    """A loaded model and what it claims."""

    context_length: int
    claimed: tuple[str, ...]
    """Capabilities that the engine claims since the load."""


class _Finding(Struct, frozen=True, kw_only=True):
    proof: Proof
    verdict: Verdict
    words: str = ""


_PROVEN = _Finding(proof="proven", verdict=Verdict.OK)


def prove_capabilities(loaded: Claims) -> ProbeResult:
    """Ask for each capability that the manifest, a listing or the engine declares.

    The verdict is that of the worst claim that does not hold; `inconclusive` if none of these, but
    one cannot be judged.
    """
    if loaded.context_length < LEAST_CONTEXT:
        text = f"a context of {loaded.context_length:,} tokens is too small: {LEAST_CONTEXT:,}"
        return ProbeResult(verdict=Verdict.INCONCLUSIVE, detail=f"{text} are needed")
    declared = {*loaded.model.capabilities, *loaded.claimed}
    found: dict[str, _Finding] = {}
    notes: tuple[str, ...] = ()
    for name in ABILITIES:
        if name == PARALLEL_ABILITY and name not in declared:
            notes = _try_in_parallel(loaded, found)
        elif name in declared or name == SCHEMA_ABILITY:
            finding = _examine(loaded, name, is_declared=name in declared)
            found |= {name: finding} if finding is not None else {}
    return _result(found, notes)


def _result(found: dict[str, _Finding], notes: tuple[str, ...]) -> ProbeResult:
    proofs: dict[str, Proof] = {name: finding.proof for name, finding in found.items()}
    if not proofs:
        return ProbeResult(verdict=Verdict.INCONCLUSIVE, detail=NOTHING_DECLARED)
    failed = [each.verdict for each in found.values() if each.proof == "failed"]
    verdict = Verdict.INCONCLUSIVE if "inconclusive" in proofs.values() else Verdict.OK
    if failed:
        verdict = min(failed, key=_WORST_FIRST.index)
    lines = [f"{name}: {each.words}" for name, each in found.items() if each.proof == "failed"]
    lines += [f"{n}: {each.words}" for n, each in found.items() if each.proof == "inconclusive"]
    if shown := [name for name, proof in proofs.items() if proof == "proven"]:
        lines.append(f"proven: {', '.join(shown)}")
    return ProbeResult(verdict=verdict, detail="\n".join(lines), capabilities=proofs, notes=notes)


def _try_in_parallel(loaded: Claims, found: dict[str, _Finding]) -> tuple[str, ...]:
    """Add calls in parallel if they are made, else return a note: listings rarely claim them."""
    tools = found.get(TOOLS_ABILITY)
    if tools is None or tools.proof != "proven":
        return ()
    trouble = _trouble(loaded, PARALLEL_ABILITY)
    if trouble is None:
        found[PARALLEL_ABILITY] = _PROVEN
        return ()
    return (f"tools: not several calls in one reply ({trouble.words})",)


def _examine(loaded: Claims, name: str, *, is_declared: bool) -> _Finding | None:
    """Return what is found of one capability; `None` if it is not declared after all."""
    try:
        trouble = _trouble(loaded, name)
    except Unable as error:
        if not is_declared:
            return None
        words = f"not judged: {error}"
        return _Finding(proof="inconclusive", verdict=Verdict.INCONCLUSIVE, words=words)
    if trouble is None:
        return _PROVEN
    if (weakness := _weakness(loaded, name)) is not None:
        words = f"not judged: {weakness}; {trouble.words}"
        return _Finding(proof="inconclusive", verdict=Verdict.INCONCLUSIVE, words=words)
    words = f"{DOES_NOT_HOLD}: {trouble.words}"
    return _Finding(proof="failed", verdict=trouble.verdict, words=words)


def _trouble(loaded: Claims, name: str) -> Trouble | None:
    """Return what is wrong with the first step that cannot be shown.

    Raises:
        Unable: The engine cannot ask for it.
        Failure: The engine failed.
    """
    for step, ways in ABILITIES[name].steps.items():
        troubles = list(_troubles(loaded, name, ways))
        if None not in troubles:
            first = next(filter(None, troubles))
            return Trouble(f"{step}: {first.words}", first.verdict)
    return None


def _troubles(loaded: Claims, name: str, ways: Iterable[Way]) -> Iterable[Trouble | None]:
    """Yield what is wrong with each answer, up to the first right one."""
    for way in ways:
        try:
            trouble = way(loaded)
        except Unable as error:
            if error.option and error.__cause__ is None:
                raise  # the engine takes no such argument
            trouble = Trouble(f"refused: {error}")
        except Failure as failure:
            failure.text = f"{name}: {failure.text}"
            if failure.verdict is not Verdict.TEMPLATE_ERROR:
                raise
            trouble = Trouble(f"refused: {failure.text}")
        yield trouble
        if trouble is None:
            return


def _weakness(loaded: Claims, name: str) -> str | None:
    """Return why nothing follows for a model: it does not even do the easy version."""
    easy = ABILITIES[name].easy
    try:
        trouble = trouble_of(easy, loaded.chat(easy.chat, max_tokens=budget(loaded)))
    except Failure as failure:
        if failure.verdict is not Verdict.TEMPLATE_ERROR:
            raise
        return f"it answers no chat at all ({failure.text})"
    if trouble is None:
        return None
    return f"it is too weak, for it fails the easy {easy.name!r} too ({trouble.words})"
