"""One load for several sizes of a model, where the largest of them loads."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from pytest_lmstrix.checks.attempt import retries_of
from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ProbeResult
from pytest_lmstrix.core.verdicts import Verdict


class SharedLoad:
    """Loads `model` at the largest of `sizes` that loads, for the smaller ones too."""

    def __init__(self, loader: ModelLoader, model: Model, sizes: Iterable[int]) -> None:
        self.sizes = set(sizes)
        """The sizes that can share one load, as far as is known."""
        self._loader = loader
        self._model = model
        self._failed: dict[int, Failure] = {}
        """Failed loads that may be retried, by the size that was loaded."""

    def failed_loads(self, size: int) -> list[Failure]:
        """Return, once, how `size` failed before its turn, to be reported with its result."""
        return [self._failed.pop(size)] if size in self._failed else []

    def try_larger(
        self,
        size: int,
        probe: Callable[[LoadedModel, int], ProbeResult],
        *,
        enough: Container[Verdict] = (Verdict.OK,),
    ) -> ProbeResult | None:
        """Return the result of `size` in a larger load, if its verdict is `enough`.

        Raises:
            Failure: It may be retried, in a separate load. Or `size` is too small for the
                probe, as it is in any load.
        """
        larger = self._larger_load(size)
        if larger is None:
            return None
        try:
            finding = probe(larger, size)
        except Failure as failure:
            if failure.verdict is Verdict.INCONCLUSIVE:
                raise
            self.sizes.clear()
            if retries_of(failure.verdict):
                raise
            return None
        if finding.verdict in enough:
            return finding
        self.sizes.clear()
        return None

    def load_alone(self, size: int) -> LoadedModel | ProbeResult:
        """Load the model at `size`; return the failure if the context is not granted.

        Raises:
            Failure: The load failed.
        """
        self.sizes.discard(size)
        loaded = self._loader.load(self._model, size)
        return loaded.refusal(size) or loaded

    def _larger_load(self, size: int) -> LoadedModel | None:
        """Load the model at the largest size that loads, if that is larger than `size`."""
        for larger in sorted(self.sizes, reverse=True):
            if larger <= size:
                break
            try:
                loaded = self._loader.load(self._model, larger)
                if loaded.refusal(larger) is None and loaded.usable_context_length >= larger:
                    return loaded
            except Failure as failure:
                if retries_of(failure.verdict):
                    self._failed[larger] = failure
            self.sizes.discard(larger)  # its turn will show why it does not load
        return None
