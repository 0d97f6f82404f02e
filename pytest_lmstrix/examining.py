"""The built-in checks in the course of a run: what one size shows is used for the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from pytest_lmstrix.deep import DeepFill
from pytest_lmstrix.judging import Judge, Probe
from pytest_lmstrix.plan import KnownRange, check_key
from pytest_lmstrix.probing import answer_questions
from pytest_lmstrix.search import FLOOR, largest, largest_below
from pytest_lmstrix.types import MAX_CONTEXT_LENGTH, Case, Result
from pytest_lmstrix.verdicts import Failure, Verdict


class Examiner:
    """Runs the built-in checks; `known` is `Plan.ranges`, and `seed` is of the run."""

    def __init__(self, judge: Judge, *, known: Mapping[str, KnownRange], seed: int) -> None:
        self._judge = judge
        self._known = dict(known)
        self._seed = seed
        self._deep_sizes: dict[str, list[int]] = {}
        self._fills: dict[str, DeepFill] = {}
        self._went_down: dict[tuple[str, str], tuple[int, str]] = {}

    def expect_deep(self, cases: Iterable[Case]) -> None:
        """The cases that `deep` will be asked for in this run."""
        for case in cases:
            self._deep_sizes.setdefault(case.model.id, []).append(case.context_length)

    def too_large(self, check: str, case: Case) -> str | None:
        """Why `case` need not be tried: a smaller size of its model was seen to fail."""
        for failed in {check, "full"}:
            size, text = self._went_down.get((failed, case.model.id), (MAX_CONTEXT_LENGTH, ""))
            if case.context_length > size:
                return text
        return None

    def check(self, check: str, case: Case, probe: Probe) -> list[Result]:
        """`case`, and if it fails, the sizes that were tried on the way down, in this order."""
        return self._with_descent(self._judge.trial(check, case, probe), case)

    def deep(self, case: Case) -> list[Result]:
        """The same for the check `deep`."""
        model = case.model
        if model.id not in self._fills:
            sizes = self._deep_sizes.get(model.id, [case.context_length])
            self._fills[model.id] = DeepFill(self._judge.bench, model, sizes, self._seed)
        return self._with_descent(self._deep_trial(self._fills[model.id], case), case)

    def limit(self, case: Case) -> list[Result]:
        """The largest size up to that of `case` that works, and then all else that was tried.

        What is known from earlier runs bounds the search, but is shown once more to count.
        """
        tried: list[Result] = []
        known = self._known.get(check_key("full", case.model.id), KnownRange())

        def works(size: int) -> bool:
            verdict = self._probe(case, size, tried).verdict
            if verdict is not Verdict.OK and not verdict.goes_down:
                raise _Stopped
            return verdict is Verdict.OK

        def shown(size: int | None) -> bool:
            return any(result.context_length == size for result in tried)

        try:
            found = largest(works, good=known.good, bad=known.bad, limit=case.context_length)
            if found is not None and not shown(found) and not works(found):
                found = largest(works, bad=found, limit=case.context_length)
        except _Stopped:
            return tried[::-1]
        of_declared = f"of {case.context_length:,} tokens"
        if found is None:
            last = tried[-1]
            detail = f"works at no size up to {case.context_length:,} tokens\n{last.detail}"
            return [replace(last, detail=detail), *tried[:-1]]
        main = next(result for result in tried if result.context_length == found)
        others = [result for result in tried if result is not main]
        return [replace(main, detail=f"works up to {found:,} {of_declared}"), *others]

    def _with_descent(self, result: Result, case: Case) -> list[Result]:
        check, model, size = result.check, case.model, case.context_length
        basis = check_key(_basis(check), model.id)
        if result.verdict is Verdict.OK:
            if check != "fast":
                self._known[basis] = replace(self._known.get(basis, KnownRange()), good=size)
            return [result]
        declared = model.context_limit or MAX_CONTEXT_LENGTH + 1
        if not (result.verdict.goes_down and FLOOR <= size < declared):
            return [result]
        tried: list[Result] = []
        good = self._known.get(basis, KnownRange()).good

        def works(smaller: int) -> bool:
            tried_now = self._probe(case, smaller, tried, deep=check == "deep")
            if tried_now.verdict is Verdict.UNREACHABLE:
                raise Failure(tried_now.detail, verdict=tried_now.verdict)
            return tried_now.verdict is Verdict.OK

        try:
            working = largest_below(
                size,
                works,
                known_good=good if good is not None and good < size else None,
                granted=result.granted_context_length,
            )
            where = f"{working:,}" if working else f"no size down to {FLOOR:,}"
            text = f"fails at {size:,}; works at {where}"
        except Failure as failure:
            text = f"fails at {size:,}; smaller sizes could not be tried: {failure.text}"
        self._went_down[check, model.id] = size, text
        return [replace(result, detail=f"{text}\n{result.detail}".strip()), *tried]

    def _probe(self, case: Case, size: int, results: list[Result], *, deep: bool = False) -> Result:
        """What `full`, or `deep`, finds at another size of the model of `case`."""
        at = replace(case, context_length=size)
        if deep:
            alone = DeepFill(self._judge.bench, case.model, [size], self._seed)
            results.append(self._deep_trial(alone, at))
        else:
            results.append(self._judge.trial("limit", at, answer_questions))
        return results[-1]

    def _deep_trial(self, fill: DeepFill, case: Case) -> Result:
        return self._judge.judged("deep", case, lambda: fill.examine(case.context_length))


def _basis(check: str) -> str:
    """The check whose knowledge is used on the way down: a mere hello shows too little."""
    return "full" if check == "fast" else check


class _Stopped(Exception):
    """A search met a verdict that says nothing of sizes; its result is the last that was tried."""
