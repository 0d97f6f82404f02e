"""The engine protocol and nothing more, with a log of its calls."""

from __future__ import annotations

from pytest_lmstrix.core.types import Message, Model, ModelFacts, Reply
from pytest_lmstrix.engines.base import Progress

A = Model(id="a", engine="bare")
B = Model(id="b", engine="bare")


class BareInstance:
    """Implements the engine protocol, and nothing more."""

    def __init__(self, engine: BareEngine, context_length: int) -> None:
        self.context_length = context_length
        self._engine = engine

    def complete(self, prompt: str, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        self._engine.may_raise("complete")
        return Reply(text=prompt)

    def chat(self, messages: list[Message], *, max_tokens: int) -> Reply:
        return Reply(text=messages[-1].content)

    def count_tokens(self, text: str) -> int:
        return len(text)

    def unload(self) -> None:
        self._engine.log.append("unload")
        self._engine.may_raise("unload")


class BareEngine:
    name = "bare"

    def __init__(self) -> None:
        self.log: list[str] = []
        self.raises: dict[str, BaseException] = {}
        self.grants: list[int] = []
        """Contexts granted by the next loads, in order, instead of the requested ones."""

    def models(self) -> list[ModelFacts]:
        self.may_raise("models")
        return []

    def load(self, model: Model, context_length: int, progress: Progress) -> BareInstance:
        self.log.append(f"load {model.id} {context_length}")
        self.may_raise("load")
        progress(1.0)
        return BareInstance(self, self.grants.pop(0) if self.grants else context_length)

    def may_raise(self, where: str) -> None:
        if where in self.raises:
            raise self.raises[where]


class Watching:
    def loading(self, model_id: str, context_length: int) -> Progress:
        class Quiet:
            def __call__(self, fraction: float, /) -> None: ...
            def prefill(self, done: int, total: int) -> None: ...

        return Quiet()

    def waiting(self, host: str, holder: str) -> None: ...
    def idle(self) -> None: ...
