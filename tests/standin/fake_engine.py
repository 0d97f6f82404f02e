"""An engine without a model: deterministic, instant, and scripted by the stand-in's behaviours.

In a `conftest.py`::

    from tests.standin.fake_engine import FakeEngine
    from tests.standin.lmstudio.models.model import StandInModel

    def pytest_lmstrix_engines(config):
        return [FakeEngine((StandInModel(key="tiny"),))]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message, Model, ModelFacts, Reply, fingerprint
from pytest_lmstrix.core.verdicts import Phase
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.request import Embeddings, Unable
from tests.standin.lmstudio import errors
from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.models import brain
from tests.standin.lmstudio.models.behaviours import (
    Load,
    MissingFromDisk,
    Prompt,
    SharesContext,
)
from tests.standin.lmstudio.models.minds import embed
from tests.standin.lmstudio.models.model import StandInModel
from tests.standin.lmstudio.models.window import window_of


class FakeEngine:
    """Has `models`; logs each action as a line in `log`: `load tiny 4096`, `unload tiny`."""

    def __init__(
        self,
        models: Sequence[StandInModel] = (StandInModel(key="tiny"),),
        *,
        name: str = "fake",
        log: Path | None = None,
    ) -> None:
        self.name = name
        self.events: list[str] = []
        self.loaded = 0
        """Instances in memory."""
        self.attempts: Counter[str] = Counter()
        self._models = {model.key: model for model in models}
        self._log = log

    def models(self) -> list[ModelFacts]:
        return [_facts(model) for model in self._models.values()]

    def load(self, model: Model, context_length: int, progress: Progress) -> FakeInstance:
        self.note(f"load {model.id} {context_length}")
        known = self._models.get(model.name)
        missing = known is None or any(isinstance(b, MissingFromDisk) for b in known.behaviours)
        if known is None or missing:
            raise _failure(errors.path_not_found(model.name, list(self._models)), "load")
        self.attempts[f"load {known.key}"] += 1
        load = Load(
            context_length=context_length,
            needed_bytes=known.needed_bytes(context_length),
            attempt=self.attempts[f"load {known.key}"],
        )
        with _refusals("load"):
            for behaviour in known.behaviours:
                behaviour.check_load(load)
        progress(1.0)
        return FakeInstance(self, known, known.grant(context_length), progress)

    def note(self, event: str) -> None:
        """Record `event`, and write it to the log."""
        self.events.append(event)
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(event + "\n")


class FakeInstance:
    """A loaded `StandInModel`."""

    def __init__(
        self, engine: FakeEngine, model: StandInModel, context_length: int, progress: Progress
    ) -> None:
        self.context_length = context_length
        shares = next((b for b in model.behaviours if isinstance(b, SharesContext)), None)
        self._room = context_length // shares.slots if shares else context_length
        self.usable_context_length = self._room if shares and shares.reported else context_length
        self._window = window_of(model, context_length)
        self._engine = engine
        self._model = model
        self._progress = progress
        self._cached: tuple[str, ...] = ()
        self._loaded = True
        engine.loaded += 1

    def complete(self, prompt: str, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        return self._predict(prompt, max_tokens, chat=False)

    def chat(
        self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0
    ) -> Reply:
        return self._predict("\n".join(m.content for m in messages), max_tokens, chat=True)

    def embed(self, texts: Sequence[str]) -> Embeddings:
        self._check_loaded()
        if self._model.type != "embedding":
            raise Unable(f"{self._model.key} is not an embedding model")
        with _refusals("predict"):
            found = [embed(self._model, text, self.context_length) for text in texts]
        return Embeddings(
            vectors=[vector for vector, _ in found],
            prompt_tokens=sum(tokens for _, tokens in found),
        )

    def count_tokens(self, text: str) -> int:
        self._check_loaded()
        return brain.count_tokens(text)

    def unload(self) -> None:
        if self._loaded:
            self._loaded = False
            self._engine.loaded -= 1
            self._engine.note(f"unload {self._model.key}")

    def _check_loaded(self) -> None:
        if not self._loaded:
            raise _failure(errors.no_matching_model({}, ()), "predict")

    def _predict(self, text: str, max_tokens: int, *, chat: bool) -> Reply:
        self._check_loaded()
        model = self._model
        sent = brain.tokenize(text)
        if len(sent) + model.bos_tokens >= self._room:
            raise _failure(errors.prompt_too_long(len(sent), self._room), "predict")
        self._engine.attempts[f"predict {model.key}"] += 1
        tokens: Sequence[str] = sent
        if self._window is not None:
            with _refusals("predict"):
                tokens = self._window.taken(tokens)
        for behaviour in model.behaviours:
            tokens = behaviour.counted(tokens)
        prompt = Prompt(
            tokens=tokens,
            context_length=self.context_length,
            attempt=self._engine.attempts[f"predict {model.key}"],
            chat=chat,
        )
        with _refusals("predict", self):
            for behaviour in model.behaviours:
                behaviour.check_prompt(prompt)
        self._progress.prefill(len(tokens), len(tokens))
        seen: Sequence[str] = tokens
        for behaviour in model.behaviours:
            seen = behaviour.visible(seen)
        said = brain.answer("".join(seen))
        thoughts: list[str] = []
        speed = model.decode_tokens_per_second
        for behaviour in model.behaviours:
            said = behaviour.reply(prompt, said)
            thoughts += (text for text, kind in behaviour.thoughts(prompt) if kind == "reasoning")
            speed = behaviour.speed(self.context_length, speed)
        thought, answer = thoughts[:max_tokens], brain.tokenize(said)
        left = max_tokens - len(thought)
        cached, self._cached = _common(self._cached, sent), sent
        fresh = len(tokens) + model.bos_tokens - cached
        return Reply(
            text="".join(answer[:left]),
            reasoning="".join(thought),
            stop_reason="length" if len(answer) > left else "stop",
            prompt_tokens=len(tokens) + model.bos_tokens,
            cached_prompt_tokens=cached,
            completion_tokens=len(thought) + min(left, len(answer)),
            ttft_seconds=(len(tokens) + 1) / model.prefill_tokens_per_second,
            prefill_seconds=fresh / model.prefill_tokens_per_second,
            prefill_tokens_per_second=model.prefill_tokens_per_second,
            decode_tokens_per_second=speed,
        )


@contextmanager
def _refusals(phase: Phase, instance: FakeInstance | None = None) -> Iterator[None]:
    """Converts a `Refused` to a `Failure`; a fatal one removes `instance`."""
    try:
        yield
    except Refused as refused:
        if refused.fatal and instance is not None:
            instance.unload()
        raise _failure(refused.error, phase) from None


def _failure(error: errors.ServerError, phase: Phase) -> Failure:
    text = ": ".join(part for part in (error.title, error.cause) if part)
    return Failure.from_engine(text, phase=phase, code=(error.display_data or {}).get("code"))


def _facts(model: StandInModel) -> ModelFacts:
    return ModelFacts(
        id=model.key,
        type=model.type,
        context_limit=model.max_context_length,
        size_bytes=model.size_bytes,
        path=model.file_path,
        architecture=model.architecture,
        quantization=model.quantization,
        fingerprint=fingerprint(sha256=None, size_bytes=model.size_bytes, path=model.file_path),
    )


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the common prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
