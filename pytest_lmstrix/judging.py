"""From a load and a probe to a verdict: what a check does, without pytest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from pytest_lmstrix.bench import Bench, LoadedModel
from pytest_lmstrix.engines import host_of, version_of
from pytest_lmstrix.text import clean
from pytest_lmstrix.types import Case, Reply, Result
from pytest_lmstrix.verdicts import Failure, Verdict

REPLY_LIMIT = 2_000
"""Characters of a reply that are kept."""
PADDING = 256
"""llama.cpp rounds a context length up to a multiple of this (`llama_context`, GGML_PAD)."""


class Finding(Struct, frozen=True, kw_only=True):
    """What a probe found."""

    verdict: Verdict
    detail: str = ""
    recall: dict[str, bool] | None = None
    seed: int | None = None


Probe = Callable[[LoadedModel], Finding]


def context_refusal(asked: int, granted: int) -> Finding | None:
    """What is wrong with a granted context length, tokens; more is fine up to the next 256."""
    if asked <= granted <= -(-asked // PADDING) * PADDING:
        return None
    return Finding(
        verdict=Verdict.CONTEXT_NOT_GRANTED,
        detail=f"asked for {asked:,} tokens of context, granted {granted:,}",
    )


class Judge:
    """Makes results of one run; `machine` identifies where it runs."""

    def __init__(self, bench: Bench, *, run: str, machine: str) -> None:
        self.bench = bench
        self._run = run
        self._machine = machine

    def trial(self, check: str, case: Case, probe: Probe) -> Result:
        """Load `case`, see what was granted, and probe it. Never raises for the model's sake."""
        loaded: LoadedModel | None = None
        asked_before = 0
        try:
            loaded = self.bench.load(case.model, case.context_length)
            asked_before = len(loaded.replies)
            finding = context_refusal(case.context_length, loaded.context_length) or probe(loaded)
        except Failure as failure:
            finding = Finding(verdict=failure.verdict, detail=failure.text)
        result = self.result(check, case, finding, loaded, since=asked_before)
        if loaded is not None and finding.verdict is not Verdict.OK:
            self.bench.unload()  # what failed may be broken: the next test gets a fresh one
        return result

    def result(
        self,
        check: str,
        case: Case,
        finding: Finding,
        loaded: LoadedModel | None,
        *,
        since: int = 0,
    ) -> Result:
        """A registry line; the replies of `loaded` from number `since` on belong to it."""
        engine = self.bench.engine_of(case.model)
        replies = loaded.replies[since:] if loaded else []
        filled = max(replies, key=_prefilled, default=None)
        longest = max(replies, key=lambda reply: reply.completion_tokens or 0, default=None)
        return Result(
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
            decode_tokens_per_second=longest.decode_tokens_per_second if longest else None,
            peak_memory_bytes=loaded.peak_memory_bytes if loaded else None,
            recall=finding.recall,
            seed=finding.seed,
            machine=self._machine,
            settings=_settings(case),
        )


def _prefilled(reply: Reply) -> int:
    return (reply.prompt_tokens or 0) - (reply.cached_prompt_tokens or 0)


def _said(reply: Reply) -> str:
    return clean(reply.text or reply.reasoning, limit=REPLY_LIMIT)


def _settings(case: Case) -> str:
    settings = msgspec.json.encode(case.model.load).decode()
    return "" if settings == "{}" else settings
