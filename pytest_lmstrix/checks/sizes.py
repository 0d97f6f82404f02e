"""The built-in checks over the sizes of a model: the results of one size serve the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from msgspec.structs import replace

from pytest_lmstrix.checks.attempt import Attempts, LoadBudget
from pytest_lmstrix.checks.case_memory import CaseMemory
from pytest_lmstrix.checks.fills.deep import DeepFill
from pytest_lmstrix.checks.fills.speed import SpeedFill
from pytest_lmstrix.checks.hosts import same_words
from pytest_lmstrix.checks.requests.embedding import EmbeddingModel
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.types import ANY_SIZE, MAX_CONTEXT_LENGTH, Case, ProbeResult, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.plan.plan import KnownRange, check_key
from pytest_lmstrix.plan.size_search import (
    FLOOR,
    MOST_LOADS,
    SizeSearch,
    search_below,
    search_up_to,
)
from pytest_lmstrix.probes.capability.embedding import prove_embedding
from pytest_lmstrix.probes.capability.prove import prove_capabilities
from pytest_lmstrix.probes.questions import PROBES, answer_questions

Trial = Callable[[int, LoadBudget], Result]
"""Tries another size of a model within a budget of loads."""


class SizePolicy:
    """Runs the built-in checks; `known` is `Plan.ranges`, `seed` the seed of the run."""

    def __init__(
        self,
        attempts: Attempts,
        *,
        known: Mapping[str, KnownRange],
        seed: int,
        memory: CaseMemory | None = None,
    ) -> None:
        """Searches start at the largest size that fits by the estimates of `memory`."""
        self._attempts = attempts
        self._memory = memory
        self._known = known
        self._seed = seed
        self._seen: dict[str, dict[int, bool]] = {}
        """Check and model of this run -> size -> whether it works."""
        self._expected: dict[tuple[str, str], list[int]] = {}
        """Check and model -> the sizes of this run."""
        self._fills: dict[str, DeepFill] = {}
        self._speeds: dict[str, SpeedFill] = {}
        self._failed_at: dict[tuple[str, str], tuple[int, str]] = {}

    def expect(self, check: str, cases: Iterable[Case]) -> None:
        """Announce the cases that `check` will run; one load may serve them."""
        for case in cases:
            sizes = self._expected.setdefault((check, case.model.id), [])
            sizes.append(case.context_length)

    def too_large(self, check: str, case: Case) -> str | None:
        """Return why `case` need not be tried: a smaller size of its model failed."""
        if check == "limit":
            return None
        for failed in (check, "full"):
            failed_at = self._failed_at.get((failed, case.model.id))
            if failed_at is not None and case.context_length > failed_at[0]:
                return failed_at[1]
        return None

    def run(self, check: str, case: Case) -> list[Result]:
        """Return the result of `case`, then those of the sizes that a search below it tried."""
        loader = self._attempts.loader
        loader.is_probing = True
        try:
            return self._run(check, case)
        finally:
            loader.is_probing = False

    def _run(self, check: str, case: Case) -> list[Result]:
        if check == "deep":
            return self._deep(case)
        if check == "limit":
            return self._limit(case)
        if check == "speed":
            return [self._speed(case)]
        if check == "capability":  # shows nothing about sizes
            embeds = case.model.type == "embedding"
            probe = _prove_embedding if embeds else prove_capabilities
            return [self._attempts.trial(check, case, probe)]
        result = self._attempts.trial(check, case, PROBES[check])
        # A mere hello shows too little to search by.
        return self._search_below(result, case, "full", partial(self._full, case))

    def _deep(self, case: Case) -> list[Result]:
        model = case.model
        if model.id not in self._fills:
            sizes = self._expected.get(("deep", model.id), [])
            self._fills[model.id] = DeepFill(self._attempts.loader, model, sizes, self._seed)
        fill = self._fills[model.id]

        def trial(size: int, budget: LoadBudget | None = None) -> Result:
            at = replace(case, context_length=size)
            before = fill.failed_loads(size)
            return self._attempts.run("deep", at, lambda: fill.examine(size), budget, before)

        result = trial(case.context_length)
        withdrawn: set[int] = set()
        if result.verdict is Verdict.CONTEXT_NOT_GRANTED and _was_shared(result):
            withdrawn = fill.withdraw()
            seen = self._seen.get(check_key("deep", model.id), {})
            for size in withdrawn:
                seen.pop(size, None)
        results = self._search_below(result, case, "deep", trial)
        tried = {each.context_length for each in results}
        again = [trial(size) for size in sorted(withdrawn - tried)]
        for each in again:
            self._remember("deep", each)
        # They are cases of this run: a failure among them explains no other one.
        results = [
            replace(each, origin="case") if each.context_length in withdrawn else each
            for each in results
        ]
        return [*results, *again]

    def _speed(self, case: Case) -> Result:
        model, size = case.model, case.context_length
        if model.id not in self._speeds:
            sizes = self._expected.get(("speed", model.id), [])
            self._speeds[model.id] = SpeedFill(self._attempts.loader, model, sizes, self._seed)
        fill = self._speeds[model.id]
        before = fill.failed_loads(size)
        result = self._attempts.run("speed", case, lambda: fill.examine(size), None, before)
        if result.verdict.smaller_may_help or result.verdict is Verdict.HOST_TROUBLE:
            self._failed_at["speed", model.id] = size, f"{result.verdict} at {size:,}"
        return result

    def _limit(self, case: Case) -> list[Result]:
        """Return the largest size up to that of `case` that works, then every other size tried.

        Known sizes bound the search, but the answer counts only if it was seen in this run.
        """
        tried: dict[int, Result] = {}
        limit = case.context_length

        def finish(search: SizeSearch) -> int | None:
            while (size := search.next_size) is not None:
                search.add_result(works(size))
            return search.answer

        def works(size: int) -> bool:
            tried[size] = self._full(case, size, check="limit")
            return _works(tried[size])

        known = self._range("full", case)
        try:
            estimated = self._largest_fitting(case)
            found = finish(search_up_to(limit, good=known.good, bad=known.bad, estimated=estimated))
            if found is not None and found not in tried and not works(found):
                found = finish(search_up_to(limit, bad=found))
        except _Stopped as stopped:
            del tried[stopped.result.context_length]
            return [stopped.result, *_searched(tried.values())]
        if found is None:
            largest = tried[max(tried)]
            main = tried.pop(min(tried))
            if _fails_alike(largest, [main]):
                return [self._failing_at_any_size(main), *_searched(tried.values())]
            detail = f"works at no size from {main.context_length:,} tokens up\n{main.detail}"
        else:
            main = tried.pop(found)
            detail = f"works up to {found:,} of {limit:,} tokens"
        return [replace(main, detail=detail), *_searched(tried.values())]

    def _full(
        self, case: Case, size: int, budget: LoadBudget | None = None, *, check: str = "full"
    ) -> Result:
        at = replace(case, context_length=size)
        return self._attempts.trial(check, at, answer_questions, budget)

    def _search_below(
        self, result: Result, case: Case, evidence: str, trial: Trial
    ) -> list[Result]:
        """Return `result`, then the sizes that `trial` tried below it if it failed."""
        model, size = case.model, case.context_length
        declared = model.context_limit or MAX_CONTEXT_LENGTH + 1
        if result.check == evidence:
            self._remember(evidence, result)
        if result.verdict is Verdict.HOST_TROUBLE:
            text = f"{result.verdict} at {size:,}: {result.detail}"
            self._failed_at[result.check, model.id] = size, text
        if not (result.verdict.smaller_may_help and FLOOR <= size < declared):
            return [result]
        tried: list[Result] = []
        asked: list[int] = []
        budget = LoadBudget(MOST_LOADS, expected=result.verdict)
        good = self._range(evidence, case).good
        search = search_below(
            size,
            known_good=good if good is not None and good < size else None,
            granted=result.granted_context_length,
            estimated=self._largest_fitting(case),
        )
        try:
            while (smaller := search.next_size) is not None:
                seen = self._seen.get(check_key(evidence, model.id), {})
                if smaller not in seen and budget.left < 1:
                    search.add_result(False)  # a smaller size was seen to work, or none will
                    continue
                asked.append(smaller)
                if smaller in seen:
                    search.add_result(seen[smaller])
                    continue
                tried.append(trial(smaller, budget))
                self._remember(evidence, tried[-1])
                search.add_result(_works(tried[-1]))
            text = f"fails at {size:,}; {_found(search.answer, asked)}"
            least = tried if size > FLOOR else [result]
            if search.answer is None and _fails_alike(result, least):
                return [self._failing_at_any_size(result), *_searched(tried)]
        except _Stopped as stopped:
            met = f"{stopped.result.verdict} at {stopped.result.context_length:,}"
            text = f"fails at {size:,}; the search below it ended with {met}"
        if model.id not in self._attempts.loader.unusable:
            self._failed_at[result.check, model.id] = size, text
        main = replace(result, detail=f"{text}\n{result.detail}".strip())
        return [main, *_searched(tried)]

    def _largest_fitting(self, case: Case) -> int | None:
        return self._memory.largest_context(case) if self._memory is not None else None

    def _failing_at_any_size(self, result: Result) -> Result:
        words = result.detail.partition("\n")[0]
        text = f"fails at any size: {words}"
        self._failed_at[result.check, result.model] = result.context_length, text
        detail = f"{result.detail}\nfails at any size"
        return replace(result, detail=detail, notes=(*result.notes, ANY_SIZE))

    def _remember(self, evidence: str, result: Result) -> None:
        if result.verdict is Verdict.OK or result.verdict.smaller_may_help:
            seen = self._seen.setdefault(check_key(evidence, result.model), {})
            seen[result.context_length] = result.verdict is Verdict.OK

    def _range(self, evidence: str, case: Case) -> KnownRange:
        """Return the known range of the model of `case`; results of this run take precedence."""
        key = check_key(evidence, case.model.id)
        known, seen = self._known.get(key, KnownRange()), self._seen.get(key, {})
        good = [size for size, works in seen.items() if works]
        bad = [size for size, works in seen.items() if not works]
        if known.good is not None and all(size > known.good for size in bad):
            good.append(known.good)
        if known.bad is not None:
            bad.append(known.bad)
        largest_good = max(good, default=None)
        larger = (size for size in bad if size > (largest_good or 0))
        return KnownRange(good=largest_good, bad=min(larger, default=None))


def _prove_embedding(loaded: LoadedModel) -> ProbeResult:
    return prove_embedding(EmbeddingModel(loaded))


def _found(working: int | None, asked: Iterable[int]) -> str:
    """Describe the answer of a search below a failure that tried the sizes `asked`."""
    least = min(asked, default=None)
    if working is not None:
        return f"works at {working:,}"
    return f"works at no size tried down to {least:,}" if least else "no smaller size is tried"


def _was_shared(result: Result) -> bool:
    """Whether the context was granted, but a request gets only a part of it."""
    return (result.granted_context_length or 0) >= result.context_length


def _fails_alike(result: Result, tried: Sequence[Result]) -> bool:
    """Whether the load of the smallest size that was tried failed with the words of `result`."""
    least = min(tried, key=lambda each: each.context_length, default=None)
    return (
        least is not None
        and result.load_seconds is None
        and least.load_seconds is None
        and least.verdict is result.verdict
        and same_words(least.detail, least.model) == same_words(result.detail, result.model)
    )


def _searched(tried: Iterable[Result]) -> list[Result]:
    return [replace(result, origin="search") for result in tried]


class _Stopped(Exception):
    """A search met a verdict that does not depend on the size."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.detail)
        self.result = result


def _works(result: Result) -> bool:
    """Raises: _Stopped: It does not work, possibly for a reason other than its size."""
    if result.verdict is not Verdict.OK and not result.verdict.smaller_may_help:
        raise _Stopped(result)
    return result.verdict is Verdict.OK
