"""The check `deep` of one model: one load, and one growing fill, for all its sizes."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_lmstrix.bench import Bench, LoadedModel
from pytest_lmstrix.haystack import MAX_SIZES, Haystack, fill
from pytest_lmstrix.judging import Finding, context_refusal
from pytest_lmstrix.recall import Control, ask_control, ask_filled
from pytest_lmstrix.types import Model
from pytest_lmstrix.verdicts import Failure


class DeepFill:
    """`model` at `sizes`, to be examined in ascending order; `seed` determines what is hidden."""

    def __init__(self, bench: Bench, model: Model, sizes: Iterable[int], seed: int) -> None:
        self._bench = bench
        self._model = model
        self._sizes = sorted(set(sizes))
        self._seed = seed
        self._refused: dict[int, Finding] = {}
        self._filled: dict[int, tuple[Haystack, Control]] = {}

    def examine(self, size: int) -> Finding:
        """Whether what is hidden in a context filled up to `size` tokens is recalled.

        Raises:
            Failure: The engine fails.
        """
        loaded = self._load(size)
        if loaded is None:
            return self._refused[size]
        if size not in self._filled:
            self._prepare(loaded, size)
        haystack, control = self._filled[size]
        recall = ask_filled(loaded, haystack, control)
        return Finding(
            verdict=recall.verdict,
            detail=recall.detail,
            recall=recall.recalled or None,
            seed=self._seed,
        )

    def _load(self, size: int) -> LoadedModel | None:
        """The model at the largest size that loads; `None` if `size` is larger than that."""
        for largest in reversed(self._sizes):
            if largest in self._refused:
                continue
            if largest < size:
                break
            try:
                loaded = self._bench.load(self._model, largest)
                refusal = context_refusal(largest, loaded.context_length)
            except Failure as failure:
                of_the_size = failure.phase == "load" and failure.verdict.goes_down
                if largest == size or not of_the_size:
                    raise
                refusal = Finding(verdict=failure.verdict, detail=failure.text)
            if refusal is None:
                return loaded
            self._refused[largest] = refusal
        return None

    def _prepare(self, loaded: LoadedModel, size: int) -> None:
        """Fill for `size` and for those after it that are to grow out of it.

        The controls of all of them come first, since they cost the engine its prefix cache.
        """
        following = [each for each in self._sizes if each >= size and each not in self._refused]
        haystacks = fill(self._seed, following[:MAX_SIZES], loaded.count_tokens)
        for haystack in haystacks:
            self._filled[haystack.size] = haystack, ask_control(loaded, haystack)
