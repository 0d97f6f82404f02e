"""From a load and a probe to a result: the part of every check that is independent of pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TypeVar

from msgspec.structs import asdict, replace

from pytest_lmstrix.checks.case_memory import CaseMemory
from pytest_lmstrix.checks.hosts import HostRows
from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.checks.slow import slow_note
from pytest_lmstrix.core.checks import CHECKS, evidence_of
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.measured import drop_insane, padded
from pytest_lmstrix.core.sanitize import clean
from pytest_lmstrix.core.types import (
    LEAST_RATE_TOKENS,
    Case,
    Model,
    ProbeResult,
    Reply,
    Result,
    settings_of,
)
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.catalog import host_of, version_of
from pytest_lmstrix.plan.plan import check_key

LOST_CONNECTIONS = 2
"""How often a case is retried after its host was lost and came back."""
MOST_REPLIES = 1_000
"""The last replies that are recorded of one check, so that its line stays readable."""
REPLY_LIMIT = 2_000
"""Characters of a reply that are kept."""


_T = TypeVar("_T")
Probe = Callable[[LoadedModel], ProbeResult]


def retries_of(verdict: Verdict) -> int:
    """How often a case that ended with `verdict` is retried before the verdict stands."""
    return LOST_CONNECTIONS if verdict is Verdict.UNREACHABLE else verdict.retries


class LoadBudget:
    """The loads that a search may still cost, all its sizes together.

    An `expected` verdict stands without a retry: where a larger size crashed twice, one more crash
    is not an accident.
    """

    def __init__(self, left: int, *, expected: Verdict) -> None:
        self.left = left
        self.expected = expected


class Attempts:
    """Tries cases and makes the results of one run; `machine` identifies where it runs.

    `speeds` is `Plan.speeds`.
    """

    def __init__(
        self,
        loader: ModelLoader,
        *,
        run: str,
        machine: str,
        speeds: Mapping[str, Mapping[int, float]] = MappingProxyType({}),
        memory: CaseMemory | None = None,
    ) -> None:
        self.loader = loader
        self._run = run
        self._machine = machine
        self._rows = HostRows()
        self._memory = memory
        self._speeds = {key: dict(rates) for key, rates in speeds.items()}

    def trial(
        self, check: str, case: Case, probe: Probe, budget: LoadBudget | None = None
    ) -> Result:
        """Load `case`, check the granted context, and probe it.

        Model failures are returned as verdicts, not raised.
        """

        def examine() -> ProbeResult:
            loaded = self.loader.load(case.model, case.context_length)
            return loaded.refusal(case.context_length) or probe(loaded)

        return self.run(check, case, examine, budget)

    def run(
        self,
        check: str,
        case: Case,
        examine: Callable[[], ProbeResult],
        budget: LoadBudget | None = None,
        before: Iterable[Failure] = (),
    ) -> Result:
        """Return the result of `examine`, retried where its verdict allows that.

        Each failure `before` counts as a try. A failed instance is unloaded, as it may be broken.
        """
        mark = self.mark()
        before = list(before)
        try:
            finding = self._tried(examine, case.model, before, budget)
        except Failure as failure:
            finding = failure.as_finding()
        if before and finding.verdict is Verdict.OK:
            reasons = "\n".join(f"{each.verdict}: {each.text}" for each in before)
            finding = replace(finding, detail=f"passed on another try, after\n{reasons}")
        result = self.result(check, case, finding, since=mark, retried=bool(before))
        if finding.verdict is not Verdict.OK:
            self.loader.unload()
        return result

    def load(self, case: Case) -> LoadedModel:
        """Load `case` for a user's own check, retried where the verdict allows that.

        Raises:
            Failure: The load failed, or granted another context than requested.
        """
        before: list[Failure] = []
        loaded = self._tried(
            lambda: self.loader.load(case.model, case.context_length), case.model, before
        )
        loaded.retried = loaded.retried or bool(before)
        refusal = loaded.refusal(case.context_length)
        if refusal is not None:
            raise Failure(refusal.detail, verdict=refusal.verdict)
        return loaded

    def _tried(
        self,
        attempt: Callable[[], _T],
        model: Model,
        before: list[Failure],
        budget: LoadBudget | None = None,
    ) -> _T:
        """Return the value of `attempt`; add each failure that is retried to `before`."""
        while True:
            try:
                if budget is not None:
                    budget.left -= 1
                return attempt()
            except Failure as failure:
                if not self._may_retry(failure.verdict, before, model, budget):
                    failure.retried = bool(before)
                    raise
                before.append(failure)
                self.loader.unload()

    def _may_retry(
        self, verdict: Verdict, before: list[Failure], model: Model, budget: LoadBudget | None
    ) -> bool:
        if budget is not None and (budget.left < 1 or verdict is budget.expected):
            return False
        spent = sum(each.verdict is verdict for each in before)
        return spent < retries_of(verdict) and self.loader.unreachable_reason(model) is None

    def mark(self) -> tuple[LoadedModel | None, int]:
        """Return the current model and the number of its replies so far."""
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
        """Make a registry line, with the replies of the loaded model `since` a mark."""
        engine = self.loader.engine_of(case.model)
        loaded = self.loader.loaded()
        if loaded is not None and loaded.model != case.model:
            loaded = None
        replies = loaded.replies[since[1] if loaded is since[0] else 0 :] if loaded else []
        filled = max(replies, key=_prefilled, default=None)
        longest = max(replies, key=lambda reply: reply.completion_tokens or 0, default=None)
        decoded = longest.completion_tokens if longest else None
        decode_rate = longest.decode_tokens_per_second if longest else None
        if (decoded or 0) < LEAST_RATE_TOKENS:
            decoded = decode_rate = None
        prefilled = _prefilled(filled) if filled else 0
        prefill_rate = filled.prefill_tokens_per_second if filled else None
        if prefilled < LEAST_RATE_TOKENS:
            prefill_rate = None
        found = finding.verdict is not Verdict.MODEL_NOT_FOUND
        if finding.medians is not None:
            decode_rate = finding.medians.decode_tokens_per_second
        result = Result(
            run=self._run,
            at=datetime.now(UTC),
            model=case.model.id,
            engine=engine.name,
            host=self.loader.host_name(engine),
            engine_version=version_of(engine),
            # A missing file has no size: its path alone would be that of other weights.
            fingerprint=case.model.fingerprint if found else None,
            check=check,
            context_length=case.context_length,
            granted_context_length=loaded.context_length if loaded else None,
            verdict=finding.verdict,
            outcome=finding.verdict.outcome,
            detail=clean(self._detail(case, finding), limit=REPLY_LIMIT),
            replies=tuple(_reply_text(reply) for reply in replies[-MOST_REPLIES:]),
            load_seconds=loaded.load_seconds if loaded else None,
            ttft_seconds=filled.ttft_seconds if filled else None,
            prompt_tokens=max((reply.prompt_tokens or 0 for reply in replies), default=0) or None,
            prefill_tokens_per_second=prefill_rate,
            decode_tokens_per_second=decode_rate,
            prefill_tokens=None if prefill_rate is None else prefilled,
            decode_tokens=None if decode_rate is None else decoded,
            peak_memory_bytes=loaded.peak_memory_bytes if loaded else None,
            estimated_memory_bytes=self._estimated_bytes(case, finding.verdict),
            recall=finding.recall,
            capabilities=finding.capabilities,
            tiers=finding.tiers,
            seed=finding.seed,
            check_version=check_version or (CHECKS[check].version if check in CHECKS else 1),
            machine=self._machine,
            settings=settings_of(case.model, ignored=loaded.ignored_settings if loaded else ()),
            retried=retried or (loaded is not None and loaded.retried),
            form=finding.form,
            samples=finding.samples,
            passed_samples=finding.passed_samples,
            required_samples=finding.required_samples,
            notes=(
                *finding.notes,
                *_load_notes(case, loaded, finding),
                *self._speed_notes(check, case, decode_rate),
            ),
        )
        if finding.medians is not None:
            measured = asdict(finding.medians)
            result = replace(result, **measured, replies=())  # long, and all alike
        drop_insane(result)
        if finding.only_this_model:
            return result
        shared = self._rows.add(result, worked=bool(replies) or finding.verdict is Verdict.OK)
        if shared is not result and shared.verdict is Verdict.HOST_TROUBLE:
            self.loader.gone[host_of(engine)] = Failure(shared.detail, verdict=shared.verdict)
        return shared

    def take_withdrawn(self) -> list[Result]:
        """Return, once, earlier results of this run whose trouble was found to be the host's."""
        return self._rows.take_withdrawn()

    def _estimated_bytes(self, case: Case, verdict: Verdict) -> int | None:
        untried = (Verdict.MODEL_NOT_FOUND, Verdict.CORRUPTED, Verdict.UNREACHABLE)
        return self._memory.total_bytes(case) if self._memory and verdict not in untried else None

    def _detail(self, case: Case, finding: ProbeResult) -> str:
        """Return the detail; for a lack of memory with what was needed and what is free."""
        if finding.verdict is not Verdict.OUT_OF_MEMORY or self._memory is None:
            return finding.detail
        shortage = self._memory.shortage(case)
        return f"{finding.detail}\n{shortage}" if shortage else finding.detail

    def _speed_notes(self, check: str, case: Case, decode_rate: float | None) -> tuple[str, ...]:
        if decode_rate is None:
            return ()
        rates = self._speeds.setdefault(check_key(evidence_of(check), case.model.id), {})
        rates[case.context_length] = decode_rate
        note = slow_note(case.context_length, decode_rate, rates)
        return (note,) if note else ()


def _load_notes(case: Case, loaded: LoadedModel | None, finding: ProbeResult) -> Iterable[str]:
    if loaded is None:
        return
    enough = padded(max(case.context_length, loaded.asked_context_length))
    if finding.verdict is Verdict.OK and loaded.context_length > enough:
        yield (
            f"larger context: granted {loaded.context_length:,} tokens,"
            f" asked for {loaded.asked_context_length:,}"
        )
    yield from loaded.engine_notes


def _prefilled(reply: Reply) -> int:
    return (reply.prompt_tokens or 0) - (reply.cached_prompt_tokens or 0)


def _reply_text(reply: Reply) -> str:
    calls = "\n".join(f"calls {call.name} {call.arguments}" for call in reply.tool_calls)
    said = "\n".join(filter(None, (reply.text, calls)))
    return clean(said or reply.reasoning, limit=REPLY_LIMIT)
