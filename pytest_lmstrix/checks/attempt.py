"""From a load and a probe to a result: what every check does, without pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TypeVar

from msgspec.structs import replace

from pytest_lmstrix.checks.loader import LoadedModel, ModelLoader
from pytest_lmstrix.checks.speed import slow_note
from pytest_lmstrix.core.checks import CHECKS, evidence_of
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.sanitize import clean
from pytest_lmstrix.core.types import (
    Case,
    Model,
    ProbeResult,
    Reply,
    Result,
    drop_insane,
    settings_of,
)
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.catalog import host_of, version_of
from pytest_lmstrix.plan.plan import check_key

LOST_CONNECTIONS = 2
"""How often a case is tried again whose host was lost and came back."""
REPLY_LIMIT = 2_000
"""Characters of a reply that are kept."""
PADDING = 256
"""llama.cpp rounds a context length up to a multiple of this (`llama_context`, GGML_PAD)."""


T = TypeVar("T")
Probe = Callable[[LoadedModel], ProbeResult]


def context_refusal(asked: int, granted: int) -> ProbeResult | None:
    """What is wrong with a granted context length, tokens; more is fine up to the next 256."""
    if asked <= granted <= -(-asked // PADDING) * PADDING:
        return None
    return ProbeResult(
        verdict=Verdict.CONTEXT_NOT_GRANTED,
        detail=f"asked for {asked:,} tokens of context, granted {granted:,}",
    )


def further_tries(verdict: Verdict) -> int:
    """How often a case that ended with `verdict` is tried again before the verdict stands."""
    return LOST_CONNECTIONS if verdict is Verdict.UNREACHABLE else verdict.retries


class LoadBudget:
    """How often the sizes of a search may be tried yet, all of them together.

    A verdict that is `expected` stands at once: where a larger size crashed twice, one more crash
    is no accident.
    """

    def __init__(self, left: int, *, expected: Verdict) -> None:
        self.left = left
        self.expected = expected


class Attempts:
    """Makes the results of one run; `machine` identifies where it runs.

    `speeds` is `Plan.speeds`.
    """

    def __init__(
        self,
        loader: ModelLoader,
        *,
        run: str,
        machine: str,
        speeds: Mapping[str, Mapping[int, float]] = MappingProxyType({}),
    ) -> None:
        self.loader = loader
        self._run = run
        self._machine = machine
        self._speeds = {key: dict(rates) for key, rates in speeds.items()}

    def trial(
        self, check: str, case: Case, probe: Probe, budget: LoadBudget | None = None
    ) -> Result:
        """Load `case`, see what was granted, and probe it. Never raises for the model's sake."""

        def examine() -> ProbeResult:
            loaded = self.loader.load(case.model, case.context_length)
            return context_refusal(case.context_length, loaded.context_length) or probe(loaded)

        return self.run(check, case, examine, budget)

    def run(
        self,
        check: str,
        case: Case,
        examine: Callable[[], ProbeResult],
        budget: LoadBudget | None = None,
        before: Iterable[Failure] = (),
    ) -> Result:
        """The result of `examine`, which is tried again where its verdict allows that.

        What failed `before` counts as a try. What failed is unloaded, as it may be broken.
        """
        mark = self.mark()
        before = list(before)
        try:
            finding = self._tried(examine, case.model, before, budget)
        except Failure as failure:
            finding = ProbeResult(verdict=failure.verdict, detail=failure.text)
        if before and finding.verdict is Verdict.OK:
            reasons = "\n".join(f"{each.verdict}: {each.text}" for each in before)
            finding = replace(finding, detail=f"passed on another try, after\n{reasons}")
        result = self.result(check, case, finding, since=mark, retried=bool(before))
        if finding.verdict is not Verdict.OK:
            self.loader.unload()
        return result

    def load(self, case: Case) -> LoadedModel:
        """`case` for a user's own check, tried again where the verdict of a failure allows that.

        Raises:
            Failure: It does not load, or not with the context that was asked for.
        """
        before: list[Failure] = []
        loaded = self._tried(
            lambda: self.loader.load(case.model, case.context_length), case.model, before
        )
        loaded.retried = loaded.retried or bool(before)
        refusal = context_refusal(case.context_length, loaded.context_length)
        if refusal is not None:
            raise Failure(refusal.detail, verdict=refusal.verdict)
        return loaded

    def _tried(
        self,
        attempt: Callable[[], T],
        model: Model,
        before: list[Failure],
        budget: LoadBudget | None = None,
    ) -> T:
        """What `attempt` returns; failures `before` it are those that another try was worth."""
        while True:
            try:
                if budget is not None:
                    budget.left -= 1
                return attempt()
            except Failure as failure:
                if not self._is_worth_another(failure.verdict, before, model, budget):
                    failure.retried = bool(before)
                    raise
                before.append(failure)
                self.loader.unload()

    def _is_worth_another(
        self, verdict: Verdict, before: list[Failure], model: Model, budget: LoadBudget | None
    ) -> bool:
        if budget is not None and (budget.left < 1 or verdict is budget.expected):
            return False
        spent = sum(each.verdict is verdict for each in before)
        return spent < further_tries(verdict) and self.loader.out_of_reach(model) is None

    def mark(self) -> tuple[LoadedModel | None, int]:
        """What is loaded, and how many replies it gave so far."""
        loaded = self.loader.loaded()
        return loaded, len(loaded.replies) if loaded else 0

    def result(
        self,
        check: str,
        case: Case,
        finding: ProbeResult,
        *,
        since: tuple[LoadedModel | None, int] = (None, 0),
        check_version: int | None = None,
        retried: bool = False,
    ) -> Result:
        """A registry line, with what the loaded model said `since` a mark."""
        engine = self.loader.engine_of(case.model)
        loaded = self.loader.loaded()
        if loaded is not None and loaded.model != case.model:
            loaded = None
        replies = loaded.replies[since[1] if loaded is since[0] else 0 :] if loaded else []
        filled = max(replies, key=_prefilled, default=None)
        longest = max(replies, key=lambda reply: reply.completion_tokens or 0, default=None)
        decode_rate = longest.decode_tokens_per_second if longest else None
        result = Result(
            run=self._run,
            at=datetime.now(UTC),
            model=case.model.id,
            engine=engine.name,
            host=host_of(engine),
            engine_version=version_of(engine),
            fingerprint=case.model.fingerprint,
            check=check,
            context_length=case.context_length,
            granted_context_length=loaded.context_length if loaded else None,
            verdict=finding.verdict,
            outcome=finding.verdict.outcome,
            detail=clean(finding.detail, limit=REPLY_LIMIT),
            replies=tuple(_said(reply) for reply in replies),
            load_seconds=loaded.load_seconds if loaded else None,
            ttft_seconds=filled.ttft_seconds if filled else None,
            prompt_tokens=max((reply.prompt_tokens or 0 for reply in replies), default=0) or None,
            prefill_tokens_per_second=filled.prefill_tokens_per_second if filled else None,
            decode_tokens_per_second=decode_rate,
            peak_memory_bytes=loaded.peak_memory_bytes if loaded else None,
            recall=finding.recall,
            seed=finding.seed,
            check_version=check_version or (CHECKS[check].version if check in CHECKS else 1),
            machine=self._machine,
            settings=settings_of(case.model),
            retried=retried or (loaded is not None and loaded.retried),
            notes=self._speed_notes(check, case, decode_rate),
        )
        drop_insane(result)
        return result

    def _speed_notes(self, check: str, case: Case, decode_rate: float | None) -> tuple[str, ...]:
        if decode_rate is None:
            return ()
        rates = self._speeds.setdefault(check_key(evidence_of(check), case.model.id), {})
        rates[case.context_length] = decode_rate
        note = slow_note(case.context_length, decode_rate, rates)
        return (note,) if note else ()


def _prefilled(reply: Reply) -> int:
    return (reply.prompt_tokens or 0) - (reply.cached_prompt_tokens or 0)


def _said(reply: Reply) -> str:
    return clean(reply.text or reply.reasoning, limit=REPLY_LIMIT)
