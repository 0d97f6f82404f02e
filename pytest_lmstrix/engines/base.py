"""The protocols that every engine implements, built in or registered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from msgspec import Struct

from pytest_lmstrix.core.types import Message, Model, ModelFacts, Reply
from pytest_lmstrix.engines.request import Embeddings
from pytest_lmstrix.system.addresses import address_of, hosts_of

_log = logging.getLogger(__name__)


class Weights(Protocol):
    """Turns a model's `source` into a file on this machine."""

    def __call__(self, model: Model, /) -> Path:
        """Return the file; download it if necessary."""


class EngineOptions(Struct, frozen=True, kw_only=True):
    """The options of a run that engines need; the hook `pytest_lmstrix_engines` receives them."""

    load_timeout: float = 600.0
    """`--lmstrix-load-timeout`: the seconds of silence allowed while a model loads."""
    reply_timeout: float = 120.0
    """`--lmstrix-reply-timeout`: those allowed while it prefills or answers."""
    hosts: tuple[str, ...] = ()
    """`--lmstrix-host`, those of all engines; see `hosts_of`."""
    llama_server: str | None = None
    """`lmstrix_llama_server`: the path or name of the user's program."""
    owner: str = "unowned"
    """Identifies this process, for `Sweeps.sweep` of a later run."""
    weights: Weights | None = None
    """Returns the file of a model with a `source`, which it downloads; `None` in commands."""
    logs: Path | None = None
    """Folder for the logs of failed loads; `None` in commands."""
    notify: Callable[[str], None] = _log.warning
    """Prints an urgent line for the user."""

    def hosts_of(self, engine: str) -> tuple[str, ...]:
        """Return what follows `ENGINE://`, or the URL that follows `ENGINE+`, of its hosts."""
        return tuple(map(address_of, hosts_of(engine, self.hosts)))


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
        """The granted context length in tokens, read back from the engine.

        With the load setting `parallel`, that of each of so many requests at once.
        """

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


@runtime_checkable
class Embeds(Protocol):
    """An instance of an embedding model, which is loaded as such if `Model.type` is `embedding`."""

    def embed(self, texts: Sequence[str], /) -> Embeddings:
        """Return a vector for each of `texts`.

        Raises:
            Failure: Among others, if a text is longer than the context.
            Unable: The engine or the server gives no embeddings.
        """


class Engine(Protocol):
    """Loads models.

    Optional methods are the protocols below: `ReportsFacts`, `Fetches`, `Sweeps`, `ListsOthers` and
    `Closes`. Optional attributes:

    - `host: str`: the host that holds one model at a time; by default the engine's name.
    - `attaches: bool`: whether it loads nothing, and only uses what a server has loaded. Its host
      is not locked.
    - `version: str`: the version of the software that runs the models.

    Optional attributes of an instance:

    - `at_once(asks) -> list[Reply]`: call `asks`, requests of this instance, each from a thread of
      its own. Without it the setting `parallel` does so from outside.
    - `embed(texts) -> Embeddings`, see `Embeds`; for embedding models.
    - `generate(prompt, *, max_tokens) -> Reply`: `complete`, past an end of text; for `speed`.
    - `rank(prompt) -> Reply`: one token after `prompt`, and `Reply.likeliest`; for `deep`.
    - `peak_memory_bytes: int | None`, and `fingerprint: str | None`.
    - `capabilities: tuple[str, ...]`: those that it claims, such as `tools`, where no listing does.
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


@runtime_checkable
class ReportsFacts(Protocol):
    """An engine that reports a model's facts without listing all of its models."""

    def facts(self, model: Model, /) -> ModelFacts | None:
        """Return the facts of `model` before any load; `None` if there are none."""


@runtime_checkable
class Fetches(Protocol):
    """An engine that needs files on this machine."""

    def fetch(self, model: Model, /) -> object:
        """Download the weights of `model`; called before its load, and not timed with it."""


@runtime_checkable
class Sweeps(Protocol):
    """An engine whose models may survive the process that loaded them."""

    def sweep(self, is_dead: Callable[[str], bool], /) -> object:
        """Unload the instances whose owner has exited; called before the first load.

        An owner is the text `EngineOptions.owner` of the run that has loaded the instance.
        """


@runtime_checkable
class ListsOthers(Protocol):
    """An engine whose host may hold models of other clients."""

    def others(self) -> Mapping[str, int | None]:
        """Return the size in bytes of each instance that this engine did not load.

        Those that it could not unload are among them.
        """


@runtime_checkable
class Closes(Protocol):
    """An engine that holds connections or processes."""

    def close(self) -> None:
        """Unload all that is left, and release all resources; idempotent."""
