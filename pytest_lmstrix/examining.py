"""The built-in checks in the course of a run: what one size shows is used for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from msgspec.structs import replace

from pytest_lmstrix.deep import DeepFill
from pytest_lmstrix.judging import Judge, Probe, Tries
from pytest_lmstrix.plan import KnownRange, check_key
from pytest_lmstrix.probing import answer_questions
from pytest_lmstrix.search import FLOOR, MOST_LOADS, largest, largest_below
from pytest_lmstrix.types import MAX_CONTEXT_LENGTH, Case, Result
from pytest_lmstrix.verdicts import Verdict

Trial = Callable[[int, Tries], Result]
"""Tries another size of a model."""


class Examiner:
    """Runs the built-in checks; `known` is `Plan.ranges`, and `seed` is of the run."""

    def __init__(self, judge: Judge, *, known: Mapping[str, KnownRange], seed: int) -> None:
        self._judge = judge
        self._known = known
        self._seed = seed
        self._seen: dict[str, dict[int, bool]] = {}
        """As in `known`, of this run: size -> whether it works."""
        self._deep_sizes: dict[str, list[int]] = {}
        self._fills: dict[str, DeepFill] = {}
        self._went_down: dict[tuple[str, str], tuple[int, str]] = {}

    def expect_deep(self, cases: Iterable[Case]) -> None:
        """The cases that `deep` will be asked for in this run."""
        for case in cases:
            self._deep_sizes.setdefault(case.model.id, []).append(case.context_length)

    def too_large(self, check: str, case: Case) -> str | None:
        """Why `case` need not be tried: a smaller size of its model was seen to fail."""
        if check == "limit":
            return None
        for failed in (check, "full"):
            went_down = self._went_down.get((failed, case.model.id))
            if went_down is not None and case.context_length > went_down[0]:
                return went_down[1]
        return None

    def check(self, check: str, case: Case, probe: Probe) -> list[Result]:
        """`case`, and if it fails, the sizes that were tried on the way down, in this order."""
        result = self._judge.trial(check, case, probe)
        # A mere hello shows too little to go by on the way down.
        return self._with_descent(result, case, "full", partial(self._full, case))

    def deep(self, case: Case) -> list[Result]:
        """The same for the check `deep`."""
        model = case.model
        if model.id not in self._fills:
            sizes = self._deep_sizes.get(model.id, [])
            self._fills[model.id] = DeepFill(self._judge.bench, model, sizes, self._seed)
        fill = self._fills[model.id]

        def trial(size: int, tries: Tries | None = None) -> Result:
            at = replace(case, context_length=size)
            before = fill.failed_loads(size)
            return self._judge.judged("deep", at, lambda: fill.examine(size), tries, before)

        return self._with_descent(trial(case.context_length), case, "deep", trial)

    def limit(self, case: Case) -> list[Result]:
        """The largest size up to that of `case` that works, and then all else that was tried.

        What is known bounds the search, but is shown once more to count.
        """
        tried: dict[int, Result] = {}

        def works(size: int) -> bool:
            tried[size] = self._full(case, size)
            return _works(tried[size])

        limit = case.context_length
        known = self._range("full", case)
        try:
            found = largest(works, good=known.good, bad=known.bad, limit=limit)
            if found is not None and found not in tried and not works(found):
                found = largest(works, bad=found, limit=limit)
        except _Stopped as stopped:
            del tried[stopped.result.context_length]
            return [stopped.result, *tried.values()]
        if found is None:
            main = tried.pop(min(tried))
            detail = f"works at no size from {main.context_length:,} tokens up\n{main.detail}"
        else:
            main = tried.pop(found)
            detail = f"works up to {found:,} of {limit:,} tokens"
        return [replace(main, detail=detail), *tried.values()]

    def _full(self, case: Case, size: int, tries: Tries | None = None) -> Result:
        at = replace(case, context_length=size)
        return self._judge.trial("limit", at, answer_questions, tries)

    def _with_descent(self, result: Result, case: Case, basis: str, trial: Trial) -> list[Result]:
        """`result`, and what was tried below it; `basis` is the check that is tried there."""
        model, size = case.model, case.context_length
        declared = model.context_limit or MAX_CONTEXT_LENGTH + 1
        if result.check == basis:
            self._see(basis, result)
        if not (result.verdict.goes_down and FLOOR <= size < declared):
            return [result]
        tried: list[Result] = []
        asked: list[int] = []
        tries = Tries(MOST_LOADS, expected=result.verdict)

        def works(smaller: int) -> bool:
            seen = self._seen.get(check_key(basis, model.id), {})
            if smaller not in seen and not tries.left:
                return False  # a smaller size was seen to work, or none will
            asked.append(smaller)
            if smaller not in seen:
                tried.append(trial(smaller, tries))
                self._see(basis, tried[-1])
                return _works(tried[-1])
            return seen[smaller]

        good = self._range(basis, case).good
        try:
            working = largest_below(
                size,
                works,
                known_good=good if good is not None and good < size else None,
                granted=result.granted_context_length,
            )
            text = f"fails at {size:,}; {_found(working, asked)}"
        except _Stopped as stopped:
            met = f"{stopped.result.verdict} at {stopped.result.context_length:,}"
            text = f"fails at {size:,}; the search below it ended with {met}"
        if model.id not in self._judge.bench.unusable:
            self._went_down[result.check, model.id] = size, text
        return [replace(result, detail=f"{text}\n{result.detail}".strip()), *tried]

    def _see(self, basis: str, result: Result) -> None:
        if result.verdict is Verdict.OK or result.verdict.goes_down:
            seen = self._seen.setdefault(check_key(basis, result.model), {})
            seen[result.context_length] = result.verdict is Verdict.OK

    def _range(self, basis: str, case: Case) -> KnownRange:
        """What is known of the model of `case`; what this run has seen counts for more."""
        key = check_key(basis, case.model.id)
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


def _found(working: int | None, asked: Iterable[int]) -> str:
    """What a way down has found by the sizes that were `asked` for."""
    least = min(asked, default=None)
    if working is not None:
        return f"works at {working:,}"
    return f"works at no size tried down to {least:,}" if least else "no smaller size is tried"


class _Stopped(Exception):
    """A search met a result that says nothing of sizes."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.detail)
        self.result = result


def _works(result: Result) -> bool:
    """Raises: _Stopped: It does not work, which may have nothing to do with its size."""
    if result.verdict is not Verdict.OK and not result.verdict.goes_down:
        raise _Stopped(result)
    return result.verdict is Verdict.OK
