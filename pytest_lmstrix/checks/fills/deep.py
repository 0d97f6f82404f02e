"""The check `deep` of one model: one load, and one growing fill, for all its sizes."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_lmstrix.checks.fills.at_once import ask_at_once
from pytest_lmstrix.checks.fills.shared_load import SharedLoad
from pytest_lmstrix.checks.fills.tiers import TierFill
from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ProbeResult
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.haystack import ANSWER_TOKENS, MAX_SIZES, Haystack, fill
from pytest_lmstrix.probes.questions import CHAT_NOTE, CHAT_TOKENS
from pytest_lmstrix.probes.recall import (
    LEAST_CONTROL,
    Control,
    ask_control,
    ask_filled,
    template_tokens,
)


class DeepFill:
    """Tests `model` at `sizes`, in ascending order; `seed` determines the needles."""

    def __init__(self, loader: ModelLoader, model: Model, sizes: Iterable[int], seed: int) -> None:
        self._model = model
        self._shared = SharedLoad(loader, model, sizes)
        self._seed = seed
        self._template_tokens: int | None = None
        """Tokens that the chat template adds, once the model is asked through it."""
        self._changed_form = False
        """Whether it is asked so because raw completions give nothing."""
        self._filled_in: LoadedModel | None = None
        self._filled: dict[int, list[tuple[Haystack, Control]]] = {}
        """Size -> what fills it, for each of the requests at once."""
        self._tiers = TierFill()
        self._asks_tiers = model.load.requests == 1
        """Whether texts may hold the facts of tiers, and rivals of them."""
        self._beside_rivals = False
        """Whether the last text does."""
        self._in_larger: set[int] = set()
        """The sizes that passed in a larger load."""
        self._beside_others = False
        """Whether the last text holds the needles of several sizes."""
        self._recalled: Haystack | None = None
        """The last haystack that was recalled."""

    def examine(self, size: int) -> ProbeResult:
        """Test whether the needles in a context filled up to `size` tokens are recalled.

        A size may pass in a larger load and beside the needles of other sizes, but fails only in a
        separate load and text, without rivals: neither a too large context nor distracting facts
        must be blamed on this size.

        Raises:
            Failure: The engine failed.
        """
        passed = self._shared.try_larger(size, self._asked_fairly)
        if passed is not None:
            self._in_larger.add(size)
            return passed
        loaded = self._shared.load_alone(size)
        if isinstance(loaded, ProbeResult):
            return loaded
        finding = self._asked(loaded, size)
        distracted = self._beside_others or self._beside_rivals
        if finding.verdict is Verdict.RECALL_FAILED and distracted:
            finding = self._asked_without_rivals(loaded, size)
        return finding

    def withdraw(self) -> set[int]:
        """Return, once, the sizes that passed in a load that was not usable to its full length.

        Each needs a load of its own.
        """
        withdrawn, self._in_larger = self._in_larger, set()
        self._shared.sizes.clear()
        self._filled.clear()
        return withdrawn

    def failed_loads(self, size: int) -> list[Failure]:
        """Return, once, how `size` failed before its turn, to be reported with its result."""
        return self._shared.failed_loads(size)

    def _asked_fairly(self, loaded: LoadedModel, size: int) -> ProbeResult:
        finding = self._asked(loaded, size)
        if finding.verdict is Verdict.RECALL_FAILED and self._beside_rivals:
            return self._asked_without_rivals(loaded, size)
        return finding

    def _asked_without_rivals(self, loaded: LoadedModel, size: int) -> ProbeResult:
        """Ask again in a text as if there were no tiers; this and all following sizes have none."""
        self._asks_tiers = False
        self._filled.clear()
        return self._asked(loaded, size)

    def _asked(self, loaded: LoadedModel, size: int) -> ProbeResult:
        if loaded is not self._filled_in:
            self._filled_in, self._filled = loaded, {}
        if size not in self._filled:
            self._prepare(loaded, size)
        filled = self._filled[size]
        haystack, control = filled[0]
        at_once = len(filled) > 1
        recall = ask_at_once(loaded, filled) if at_once else ask_filled(loaded, haystack, control)
        verdict, detail, tiers = recall.verdict, recall.detail, None
        if verdict is Verdict.OK:
            self._recalled = haystack
            tiers = self._tiers.ask_filled(loaded, haystack, control.form)
        elif verdict is Verdict.INCONCLUSIVE and self._recalled is not None:
            # The model is able: does it only fail at this larger context?
            before = self._recalled
            score = self._control(loaded, before).score
            if score < LEAST_CONTROL:
                verdict = Verdict.RECALL_FAILED
                detail += f", and {score} of those that it recalled at {before.size:,} tokens"
        return ProbeResult(
            verdict=verdict,
            detail=detail,
            recall=recall.recalled or None,
            tiers=tiers,
            seed=self._seed,
            form=control.form,
            notes=(CHAT_NOTE,) if self._changed_form and verdict is Verdict.OK else (),
        )

    def _prepare(self, loaded: LoadedModel, size: int) -> None:
        """Build the haystack for `size` and for the following sizes that grow out of it.

        The controls of all of them come first, since they evict the engine's prefix cache.
        """
        if self._model.prompts == "chat" and self._template_tokens is None:
            self._template_tokens = template_tokens(loaded)
        room = loaded.room
        following = sorted({size, *(each for each in self._shared.sizes if size <= each <= room)})
        haystacks = self._haystacks(loaded, size, following, self._seed)
        controls = [self._control(loaded, each) for each in haystacks]
        if controls[0].unanswered and self._is_answered_by_chat(loaded, haystacks[0]):
            haystacks = self._haystacks(loaded, size, following, self._seed)
            controls = [self._control(loaded, each) for each in haystacks]
        self._beside_others = len(haystacks) > 1
        self._beside_rivals = any(each.tiers for each in haystacks)
        for haystack, control in zip(haystacks, controls, strict=True):
            self._filled[haystack.size] = [(haystack, control)]
            if control.score >= LEAST_CONTROL:
                self._tiers.ask_control(loaded, haystack, control.form)
        for number in range(1, self._model.load.requests):
            for haystack in self._haystacks(loaded, size, following, self._seed + number):
                control = self._control(loaded, haystack)
                self._filled[haystack.size].append((haystack, control))

    def _haystacks(
        self, loaded: LoadedModel, size: int, following: list[int], seed: int
    ) -> tuple[Haystack, ...]:
        try:
            return self._fill(loaded, following[:MAX_SIZES], seed)
        except Failure as failure:
            if failure.verdict is not Verdict.INCONCLUSIVE or following == [size]:
                raise
            # Is it too small alone?
            return self._fill(loaded, [size], seed)

    def _fill(self, loaded: LoadedModel, sizes: list[int], seed: int) -> tuple[Haystack, ...]:
        return fill(seed, sizes, loaded.count_tokens, self._reserved, self._asks_tiers)

    def _reserved(self, size: int) -> int:
        """Return what a chat needs beyond a raw completion: its template and its reasoning."""
        if self._template_tokens is None:
            return 0
        return self._template_tokens + self._answer_tokens(size) - ANSWER_TOKENS

    def _answer_tokens(self, size: int) -> int:
        budget = self._model.answer_tokens or CHAT_TOKENS
        return max(ANSWER_TOKENS, min(budget, size // 4))

    def _control(self, loaded: LoadedModel, haystack: Haystack) -> Control:
        if self._template_tokens is None:
            return ask_control(loaded, haystack)
        return ask_control(loaded, haystack, "chat", self._answer_tokens(haystack.size))

    def _is_answered_by_chat(self, loaded: LoadedModel, haystack: Haystack) -> bool:
        """Ask from now on through the chat template, if the model recalls the facts so."""
        if self._template_tokens is not None:
            return False
        try:
            control = ask_control(loaded, haystack, "chat", self._answer_tokens(haystack.size))
        except Failure as failure:
            if failure.verdict.subject == "host":
                raise
            return False
        if control.score >= LEAST_CONTROL:
            self._template_tokens = max(0, control.special_tokens)
            self._changed_form = True
        return self._changed_form
