"""The check `speed` of one model: one load, and one growing fill, for all its sizes."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_lmstrix.checks.fills.shared_load import SharedLoad
from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ProbeResult
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.speed import Depth, measure, result_of
from pytest_lmstrix.probes.speed_text import Amounts, Fill, SpeedTexts, amounts_of

_EMPTY = Fill("", 0)


class SpeedFill:
    """Measures `model` at `sizes`, in ascending order; `seed` determines the fill."""

    def __init__(self, loader: ModelLoader, model: Model, sizes: Iterable[int], seed: int) -> None:
        self._shared = SharedLoad(loader, model, sizes)
        self._seed = seed
        self._measured_in: LoadedModel | None = None
        self._texts: SpeedTexts | None = None
        self._fills: dict[int, Fill] = {}
        """Size -> what fills it."""
        self._empty: dict[Amounts, Depth] = {}
        """Amounts, without a fill -> the rates at depth 0."""

    def examine(self, size: int) -> ProbeResult:
        """Measure the rates at depth 0 and in a context of `size` tokens.

        Raises:
            Failure: The engine failed, or `size` is too small.
        """
        amounts_of(size)  # before a load
        enough = (Verdict.OK, Verdict.INCONCLUSIVE)
        finding = self._shared.try_larger(size, self._measured, enough=enough)
        if finding is not None:
            return finding
        loaded = self._shared.load_alone(size)
        return loaded if isinstance(loaded, ProbeResult) else self._measured(loaded, size)

    def failed_loads(self, size: int) -> list[Failure]:
        """Return, once, how `size` failed before its turn, to be reported with its result."""
        return self._shared.failed_loads(size)

    def _measured(self, loaded: LoadedModel, size: int) -> ProbeResult:
        if loaded is not self._measured_in:
            self._measured_in, self._texts = loaded, None
            self._fills, self._empty = {}, {}
        if self._texts is None:
            self._texts = SpeedTexts(self._seed, loaded.count_tokens)
        amounts = amounts_of(size)
        if size not in self._fills:
            self._prepare(self._texts, loaded, size)
        bare = amounts._replace(fill=0)
        if bare not in self._empty:
            self._empty[bare] = measure(loaded, self._texts, _EMPTY, bare)
        empty = filled = self._empty[bare]
        if self._fills[size].tokens and not empty.problem:
            filled = measure(loaded, self._texts, self._fills[size], amounts)
        return result_of(empty, filled, seed=self._seed, amounts=amounts)

    def _prepare(self, texts: SpeedTexts, loaded: LoadedModel, size: int) -> None:
        """Cut the fills for `size` and the following ones: counting may use the prefix cache."""
        following = (each for each in self._shared.sizes if size < each <= loaded.room)
        for each in sorted({size, *following}):
            self._fills[each] = texts.fill(amounts_of(each).fill)
