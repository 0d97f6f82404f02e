"""Engines by name: the built-in ones, created on first use, and registered ones."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from pytest_lmstrix.core.types import Model, ModelFacts
from pytest_lmstrix.engines.base import Engine
from pytest_lmstrix.system.addresses import server_url

_log = logging.getLogger(__name__)

BUILT_IN = ("lmstudio", "llamacpp", "llama-server", "ollama", "openai")

HOST_SCHEMES = {
    "": "lmstudio",
    "http": "lmstudio",
    "ollama": "ollama",
    "openai+http": "openai",
    "openai+https": "openai",
    "llama-server+http": "llama-server",
    "llama-server+https": "llama-server",
}
"""Scheme of a host, as in `ollama://127.0.0.1:11434` -> the engine that runs there."""


class EngineUnavailable(ValueError):
    """An unknown engine, or one whose dependency is not installed; the text names the fix."""


def hosts_of(engine: str, hosts: Iterable[str]) -> tuple[str, ...]:
    """Return those of `hosts` where `engine` runs."""
    return tuple(host for host in hosts if HOST_SCHEMES[_scheme(host)] == engine)


def hosts_for(model: Model, hosts: Iterable[str]) -> tuple[str, ...]:
    """Return the server that `model` names, or else those of `hosts` where its engine runs."""
    if model.engine == "openai" and model.url is not None:
        return (f"openai+{server_url(model.url)}",)
    return hosts_of(model.engine, hosts)


def _scheme(host: str) -> str:
    return host.lower().rpartition("://")[0]


class Weights(Protocol):
    """Turns a model's `source` into a file on this machine."""

    def __call__(self, model: Model, /) -> Path: ...


class Engines:
    """The engines of one process.

    `homes` are the hosts, at most one per engine, for models that every host has; an engine
    without one finds its host itself. Time-outs are silence limits in seconds. The logs of failed
    servers of llama.cpp are kept in the folder `logs`. `llama_server` is the path or name of the
    user's program. `notify` receives urgent messages for the user.
    """

    def __init__(
        self,
        registered: Iterable[Engine] = (),
        *,
        homes: Iterable[str] = (),
        load_timeout: float = 600.0,
        reply_timeout: float = 120.0,
        weights: Weights | None = None,
        owner: str | None = None,
        logs: Path | None = None,
        llama_server: str | None = None,
        notify: Callable[[str], None] = _log.warning,
    ) -> None:
        self._registered = {engine.name: engine for engine in registered}
        self._made: dict[tuple[str, str | None], Engine] = {}
        self._homes = tuple(homes)
        self._load_timeout = load_timeout
        self._reply_timeout = reply_timeout
        self._weights = weights
        self._owner = owner
        self._logs = logs
        self._llama_server = llama_server
        self._notify = notify

    def require(self, name: str) -> None:
        """Raises:
        EngineUnavailable: `name` is unknown, or its dependency is not installed.
        """
        if name in self._registered:
            return
        if name == "llamacpp" and find_spec("xllamacpp") is None:
            raise EngineUnavailable(
                "engine 'llamacpp' needs llama.cpp: pip install 'pytest-lmstrix[llamacpp]'"
            )
        if name not in BUILT_IN:
            names = sorted({*BUILT_IN, *self._registered})
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; choose from {', '.join(names)}"
            raise EngineUnavailable(f"'{name}' is not a known engine{hint}")

    def get(self, name: str, hosts: Sequence[str] = ()) -> Engine:
        """The engine `name`; of its hosts the home host if it is in `hosts`, or the first.

        Raises:
            EngineUnavailable: `name` is unknown, or its dependency is not installed.
        """
        self.require(name)
        if name in self._registered:
            return self._registered[name]
        home = next(iter(hosts_of(name, self._homes)), None)
        others = hosts_of(name, hosts)
        host = others[0] if others and home not in others else home
        if (name, host) not in self._made:
            self._made[name, host] = self._make(name, host)
        return self._made[name, host]

    def _make(self, name: str, host: str | None) -> Engine:
        if name == "lmstudio":
            from pytest_lmstrix.engines.lmstudio.engine import LATE_LOAD_SECONDS, LmStudioEngine

            return LmStudioEngine(
                host,
                load_timeout=self._load_timeout,
                reply_timeout=self._reply_timeout,
                owner=self._owner,
                # A late load gets no longer than any other silent load.
                late_load_seconds=min(LATE_LOAD_SECONDS, self._load_timeout),
                notify=self._notify,
            )
        if name == "ollama":
            from pytest_lmstrix.engines.ollama.engine import OllamaEngine

            return OllamaEngine(
                host,
                load_timeout=self._load_timeout,
                reply_timeout=self._reply_timeout,
                owner=self._owner,
                notify=self._notify,
            )
        if name == "openai":
            from pytest_lmstrix.engines.openai.engine import OpenAiEngine

            return OpenAiEngine(host, reply_timeout=self._reply_timeout)
        if name == "llama-server":
            return self._make_llama_server(host)
        from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine

        return LlamaCppEngine(
            load_timeout=self._load_timeout,
            reply_timeout=self._reply_timeout,
            weights=self._weights,
            logs=self._logs,
        )

    def _make_llama_server(self, host: str | None) -> Engine:
        if host is not None:
            from pytest_lmstrix.engines.llamacpp.router import LlamaRouterEngine

            return LlamaRouterEngine(
                host,
                load_timeout=self._load_timeout,
                reply_timeout=self._reply_timeout,
                owner=self._owner,
                notify=self._notify,
            )
        from pytest_lmstrix.engines.llamacpp.own_binary import LlamaServerEngine

        return LlamaServerEngine(
            self._llama_server,
            load_timeout=self._load_timeout,
            reply_timeout=self._reply_timeout,
            weights=self._weights,
            owner=self._owner,
            logs=self._logs,
        )

    def close(self) -> None:
        for engine in (*self._registered.values(), *self._made.values()):
            close: Callable[[], None] | None = getattr(engine, "close", None)
            if close is not None:
                close()


def facts_of(engine: Engine, model: Model) -> ModelFacts | None:
    """Return the facts that `engine` has of `model` before any load.

    Raises:
        Exception: The query failed; third-party engines may raise anything.
    """
    ask: Callable[[Model], ModelFacts | None] | None = getattr(engine, "facts", None)
    if ask is not None:
        return ask(model)
    return next((facts for facts in engine.models() if facts.id == model.name), None)


def host_of(engine: Engine) -> str:
    """Return the host that holds one model at a time."""
    return getattr(engine, "host", None) or engine.name


def version_of(engine: Engine) -> str | None:
    version: str | None = None
    with suppress(Exception):  # third-party engines may raise anything
        version = getattr(engine, "version", None)
    return version
