"""What an engine is: the protocols that every engine, built in or registered, fulfils."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pytest_lmstrix.core.types import Message, Model, ModelFacts, Reply


class Progress(Protocol):
    """Told how far an engine is; every call also says that it is alive."""

    def __call__(self, fraction: float, /) -> None:
        """A load has come to `fraction`, 0..1."""

    def prefill(self, done: int, total: int) -> None:
        """`done` of `total` prompt tokens are in the KV cache."""


class Instance(Protocol):
    """A model that is loaded. Whatever goes wrong in it is raised as `Failure`."""

    @property
    def context_length(self) -> int:
        """Granted, read back from the engine; tokens."""

    def complete(self, prompt: str, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        """Go on with `prompt` as it is, without any chat template."""

    def chat(self, messages: Sequence[Message], *, max_tokens: int) -> Reply:
        """Answer `messages` through the model's chat template, at temperature 0."""

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` in the model's own vocabulary, without special tokens."""

    def unload(self) -> None:
        """Unload and confirm that it is gone; harmless when repeated."""


class Engine(Protocol):
    """What loads models.

    An engine may also have these, which are used where they exist:

    - `host: str`: what only one model at a time may be loaded on; the engine's name otherwise.
    - `version: str`: of what runs the models.
    - `facts(model: Model) -> ModelFacts | None`: what is known of one model before any load;
      otherwise it is looked up in `models()`.
    - `fetch(model: Model)`: downloads its weights, before its load.
    - `sweep(is_dead: Callable[[str], bool])`: unloads what owners that are dead have left loaded.
    - `close() -> None`: called once, at the end of the session.

    And an instance `peak_memory_bytes: int | None`, and `fingerprint: str | None`.
    """

    @property
    def name(self) -> str:
        """What `engine:` in a manifest calls it."""

    def models(self) -> list[ModelFacts]:
        """Every model that it has, embedding models included."""

    def load(self, model: Model, context_length: int, progress: Progress) -> Instance:
        """Load `model` with room for `context_length` tokens.

        Raises:
            Failure: It does not load; nothing is left behind.
        """
