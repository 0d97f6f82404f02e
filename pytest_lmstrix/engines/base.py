"""The protocols that every engine implements, built in or registered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pytest_lmstrix.core.types import Message, Model, ModelFacts, Reply

NO_ENGINE = "engine"
"""The code of a `Failure` that every model of the engine would meet, such as a missing program."""


class Progress(Protocol):
    """Receives the progress of an engine; every call is also a heartbeat."""

    def __call__(self, fraction: float, /) -> None:
        """Report the completed fraction of a load, 0..1."""

    def prefill(self, done: int, total: int) -> None:
        """Report that `done` of `total` prompt tokens are in the KV cache."""


class Instance(Protocol):
    """A loaded model; every error in it is raised as `Failure`."""

    @property
    def context_length(self) -> int:
        """The granted context length in tokens, read back from the engine."""

    def complete(self, prompt: str, *, max_tokens: int, temperature: float = 0.0) -> Reply:
        """Continue `prompt` as it is, without a chat template."""

    def chat(
        self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0
    ) -> Reply:
        """Answer `messages` through the model's chat template."""

    def count_tokens(self, text: str) -> int:
        """Count the tokens of `text` in the model's vocabulary, without special tokens."""

    def unload(self) -> None:
        """Unload the model and confirm it; idempotent."""


class Engine(Protocol):
    """Loads models.

    Optional members, used where they exist:

    - `host: str`: the host that holds one model at a time; by default the engine's name.
    - `version: str`: the version of the software that runs the models.
    - `facts(model: Model) -> ModelFacts | None`: the facts of one model before any load;
      by default looked up in `models()`.
    - `fetch(model: Model)`: downloads its weights, before its load.
    - `sweep(is_dead: Callable[[str], bool])`: unloads the instances of exited owners.
    - `others() -> Mapping[str, int | None]`: the instances in the host's memory that this engine
      did not load, or could not unload, and their sizes in bytes.
    - `close() -> None`: called once, at the end of the session.

    And an instance:

    - `peak_memory_bytes: int | None`, and `fingerprint: str | None`.
    - `usable_context_length: int`: what one request may fill, where several share the context.
    - `ignored_settings: tuple[str, ...]`: load settings that are not in force after all.
    - `notes: tuple[str, ...]`: what a person should know of the load, each `topic: text`.
    """

    @property
    def name(self) -> str:
        """The name for `engine:` in a manifest."""

    def models(self) -> list[ModelFacts]:
        """Return all its models, embedding models included."""

    def load(self, model: Model, context_length: int, progress: Progress) -> Instance:
        """Load `model` with room for `context_length` tokens.

        Raises:
            Failure: It cannot be loaded; nothing stays in memory.
        """
