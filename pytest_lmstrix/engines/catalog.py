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

_log = logging.getLogger(__name__)

BUILT_IN = ("lmstudio", "llamacpp")


class EngineUnavailable(ValueError):
    """An unknown engine, or one whose dependency is not installed; the text names the fix."""


class Weights(Protocol):
    """Turns a model's `source` into a file on this machine."""

    def __call__(self, model: Model, /) -> Path: ...


class Engines:
    """The engines of one process.

    `home` is the LM Studio host for models that every host has; `None` leaves the discovery to
    the SDK. Time-outs are silence limits in seconds. The logs of failed servers of llama.cpp are
    kept in the folder `logs`. `notify` receives urgent messages for the user.
    """

    def __init__(
        self,
        registered: Iterable[Engine] = (),
        *,
        home: str | None = None,
        load_timeout: float = 600.0,
        reply_timeout: float = 120.0,
        weights: Weights | None = None,
        owner: str | None = None,
        logs: Path | None = None,
        notify: Callable[[str], None] = _log.warning,
    ) -> None:
        self._registered = {engine.name: engine for engine in registered}
        self._made: dict[tuple[str, str | None], Engine] = {}
        self._home = home
        self._load_timeout = load_timeout
        self._reply_timeout = reply_timeout
        self._weights = weights
        self._owner = owner
        self._logs = logs
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
        """The engine `name`; of LM Studio's hosts the home host if it is in `hosts`, or the first.

        Raises:
            EngineUnavailable: `name` is unknown, or its dependency is not installed.
        """
        self.require(name)
        if name in self._registered:
            return self._registered[name]
        host = None
        if name == "lmstudio":
            host = hosts[0] if hosts and self._home not in hosts else self._home
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
        from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine

        return LlamaCppEngine(
            load_timeout=self._load_timeout,
            reply_timeout=self._reply_timeout,
            weights=self._weights,
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
    return next((facts for facts in engine.models() if facts.id == model.id), None)


def host_of(engine: Engine) -> str:
    """Return the host that holds one model at a time."""
    return getattr(engine, "host", None) or engine.name


def version_of(engine: Engine) -> str | None:
    version: str | None = None
    with suppress(Exception):  # third-party engines may raise anything
        version = getattr(engine, "version", None)
    return version
