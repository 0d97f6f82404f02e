"""The check `deep` of one model: one load, and one growing fill, for all its sizes."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_lmstrix.checks.attempt import retries_of
from pytest_lmstrix.checks.granted import context_refusal
from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.checks.requests.loaded import LoadedModel
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ProbeResult
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.haystack import ANSWER_TOKENS, MAX_SIZES, Haystack, fill
from pytest_lmstrix.probes.questions import CHAT_NOTE, CHAT_TOKENS
from pytest_lmstrix.probes.recall import LEAST_CONTROL, Control, ask_control, ask_filled


class DeepFill:
    """Tests `model` at `sizes`, in ascending order; `seed` determines the needles."""

    def __init__(self, loader: ModelLoader, model: Model, sizes: Iterable[int], seed: int) -> None:
        self._loader = loader
        self._model = model
        self._sizes = set(sizes)
        """The sizes that can share one load, as far as is known."""
        self._failed: dict[int, Failure] = {}
        """Failed loads that may be retried, by the size that was loaded."""
        self._seed = seed
        self._template_tokens: int | None = None
        """Tokens that the chat template adds, once the model is asked through it."""
        self._filled_in: LoadedModel | None = None
        self._filled: dict[int, tuple[Haystack, Control]] = {}
        self._in_larger: set[int] = set()
        """The sizes that passed in a larger load."""
        self._beside_others = False
        """Whether the last text holds the needles of several sizes."""
        self._recalled: Haystack | None = None
        """The last haystack that was recalled."""

    def examine(self, size: int) -> ProbeResult:
        """Test whether the needles in a context filled up to `size` tokens are recalled.

        A size may pass in a larger load and beside the needles of other sizes, but fails only in a
        separate load and text: neither a too large context nor distracting needles must be
        blamed on this size.

        Raises:
            Failure: The engine failed.
        """
        larger = self._larger_load(size)
        if larger is not None:
            finding = self._pass_in(larger, size)
            if finding is not None:
                return finding
        self._sizes.discard(size)
        loaded = self._loader.load(self._model, size)
        refusal = context_refusal(size, loaded.context_length)
        if refusal is not None:
            return refusal
        finding = self._asked(loaded, size)
        if finding.verdict is Verdict.RECALL_FAILED and self._beside_others:
            self._filled.clear()
            finding = self._asked(loaded, size)
        return finding

    def withdraw(self) -> set[int]:
        """Return, once, the sizes that passed in a load that was not usable to its full length.

        Each needs a load of its own.
        """
        withdrawn, self._in_larger = self._in_larger, set()
        self._sizes.clear()
        self._filled.clear()
        return withdrawn

    def failed_loads(self, size: int) -> list[Failure]:
        """Return, once, how `size` failed before its turn, to be reported with its result."""
        return [self._failed.pop(size)] if size in self._failed else []

    def _larger_load(self, size: int) -> LoadedModel | None:
        """Load the model at the largest size that loads, if that is larger than `size`."""
        for larger in sorted(self._sizes, reverse=True):
            if larger <= size:
                break
            try:
                loaded = self._loader.load(self._model, larger)
                refused = context_refusal(larger, loaded.context_length)
                if refused is None and loaded.usable_context_length >= larger:
                    return loaded
            except Failure as failure:
                if retries_of(failure.verdict):
                    self._failed[larger] = failure
            self._sizes.discard(larger)  # its turn will show why it does not load
        return None

    def _pass_in(self, larger: LoadedModel, size: int) -> ProbeResult | None:
        """Return the result if `size` passes in the larger load.

        Raises:
            Failure: It may be retried, in a separate load. Or `size` is too small for its
                needles, as it is in any load.
        """
        try:
            finding = self._asked(larger, size)
        except Failure as failure:
            if failure.verdict is Verdict.INCONCLUSIVE:
                raise
            self._sizes.clear()
            if retries_of(failure.verdict):
                raise
            return None
        if finding.verdict is Verdict.OK:
            self._in_larger.add(size)
            return finding
        self._sizes.clear()
        return None

    def _asked(self, loaded: LoadedModel, size: int) -> ProbeResult:
        if loaded is not self._filled_in:
            self._filled_in, self._filled = loaded, {}
        if size not in self._filled:
            self._prepare(loaded, size)
        haystack, control = self._filled[size]
        recall = ask_filled(loaded, haystack, control)
        verdict, detail = recall.verdict, recall.detail
        if verdict is Verdict.OK:
            self._recalled = haystack
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
            seed=self._seed,
            form=control.form,
            notes=(CHAT_NOTE,) if control.form == "chat" and verdict is Verdict.OK else (),
        )

    def _prepare(self, loaded: LoadedModel, size: int) -> None:
        """Build the haystack for `size` and for the following sizes that grow out of it.

        The controls of all of them come first, since they evict the engine's prefix cache.
        """
        room = loaded.room
        following = sorted({size, *(each for each in self._sizes if size <= each <= room)})
        haystacks = self._haystacks(loaded, size, following)
        controls = [self._control(loaded, each) for each in haystacks]
        if controls[0].unanswered and self._is_answered_by_chat(loaded, haystacks[0]):
            haystacks = self._haystacks(loaded, size, following)
            controls = [self._control(loaded, each) for each in haystacks]
        self._beside_others = len(haystacks) > 1
        for haystack, control in zip(haystacks, controls, strict=True):
            self._filled[haystack.size] = haystack, control

    def _haystacks(
        self, loaded: LoadedModel, size: int, following: list[int]
    ) -> tuple[Haystack, ...]:
        try:
            return fill(self._seed, following[:MAX_SIZES], loaded.count_tokens, self._reserved)
        except Failure as failure:
            if failure.verdict is not Verdict.INCONCLUSIVE or following == [size]:
                raise
            # Is it too small alone?
            return fill(self._seed, [size], loaded.count_tokens, self._reserved)

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
        return self._template_tokens is not None
