"""The tiers of `deep` beside its verdict, on the same fill."""

from __future__ import annotations

from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.checks import TIERS, Tier
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Prompts
from pytest_lmstrix.probes.haystack import Haystack
from pytest_lmstrix.probes.tiers.asked import ENOUGH, scores


class TierFill:
    """Asks one model for the tiers; after a failure no more, since none may become a verdict."""

    def __init__(self) -> None:
        self._able: dict[int, tuple[Tier, ...]] = {}
        """Size -> the tiers that the model can do in a few lines."""
        self._failed = False

    def ask_control(self, loaded: LoadedModel, haystack: Haystack, form: Prompts) -> None:
        """Ask without the prose; call it before any filled prompt, as `recall.ask_control`."""
        self._able[haystack.size] = ()
        if haystack.tiers is not None:
            found = self._scores(loaded, haystack, haystack.tiers.control, form, TIERS)
            self._able[haystack.size] = tuple(t for t, score in found.items() if score >= ENOUGH)

    def ask_filled(
        self, loaded: LoadedModel, haystack: Haystack, form: Prompts
    ) -> dict[str, bool] | None:
        """Return which tiers passed; without those that the model cannot do in a few lines."""
        able = self._able.get(haystack.size, ())
        found = self._scores(loaded, haystack, haystack.prose, form, able)
        return {tier: score >= ENOUGH for tier, score in found.items()} or None

    def _scores(
        self,
        loaded: LoadedModel,
        haystack: Haystack,
        text: str,
        form: Prompts,
        tiers: tuple[Tier, ...],
    ) -> dict[Tier, int]:
        if haystack.tiers is None or self._failed:
            return {}
        try:
            return scores(loaded, text, haystack.tiers, form, tiers)
        except Failure:
            self._failed = True
            return {}
