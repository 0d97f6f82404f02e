"""Engines by name: the built-in ones, created on first use, and registered ones."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec

from pytest_lmstrix.core.types import Host, Model, ModelFacts
from pytest_lmstrix.engines.base import Closes, Engine, EngineOptions, ReportsFacts
from pytest_lmstrix.system.addresses import address_of, engine_at, hosts_of, server_url
from pytest_lmstrix.weights.source import redact

BUILT_IN = ("lmstudio", "llamacpp", "llama-server", "ollama", "openai")


class EngineUnavailable(ValueError):
    """An unknown engine, or one whose dependency is not installed; the text names the fix."""


def hosts_for(model: Model, hosts: Iterable[str]) -> tuple[str, ...]:
    """Return the server that `model` names, or else those of `hosts` where its engine runs."""
    if model.engine == "openai" and model.url is not None:
        return (f"openai+{server_url(model.url)}",)
    return hosts_of(model.engine, hosts)


class Engines:
    """The engines of one process.

    `homes` are the hosts that this process prefers to others; an engine without one finds its
    host itself. `hosts` describes those of the run. `options` are those for the built-in engines.
    """

    def __init__(
        self,
        registered: Iterable[Engine] = (),
        *,
        homes: Iterable[str] = (),
        hosts: Iterable[Host] = (),
        options: EngineOptions | None = None,
    ) -> None:
        self._registered: dict[str, list[Engine]] = {}
        for engine in registered:
            self._registered.setdefault(engine.name, []).append(engine)
        self._made: dict[tuple[str, str | None], Engine] = {}
        self._homes = tuple(homes)
        self._hosts = {host.address: host for host in hosts}
        self._addresses: dict[int, str] = {}
        """Id of an engine -> its host, as given."""
        self._options = options or EngineOptions()

    @property
    def registered(self) -> frozenset[str]:
        """The names of the engines that hooks have registered."""
        return frozenset(self._registered)

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

    def check_hosts(self, hosts: Iterable[str]) -> None:
        """Check that the engines that `hosts` name are known.

        Raises:
            EngineUnavailable: One is not; the text names the host.
        """
        for host in hosts:
            try:
                self.require(engine_at(host))
            except EngineUnavailable as error:
                text = f"'{host}' is not host:port or ENGINE://host:port: {error}"
                raise EngineUnavailable(text) from None

    def get(self, name: str, hosts: Sequence[str] = (), gone: Container[str] = ()) -> Engine:
        """The engine `name`, on the first of its home hosts that is in `hosts`, or else the first.

        Hosts that are `gone` come last.

        Raises:
            EngineUnavailable: `name` is unknown, or its dependency is not installed.
        """
        self.require(name)
        homes, having = hosts_of(name, self._homes), hosts_of(name, hosts)
        preferred = [host for host in homes if host in having] if having else homes
        found = [self._at(name, host) for host in dict.fromkeys((*preferred, *having))]
        if not found:
            return self._at(name, None)
        return next((engine for engine in found if host_of(engine) not in gone), found[0])

    def host(self, engine: Engine) -> Host:
        """Return the host of `engine`; without a name unless the manifest has one."""
        known = self._hosts.get(self._addresses.get(id(engine), ""))
        return known or Host(address=host_of(engine))

    def host_name(self, engine: Engine) -> str:
        """Return the name of the host of `engine`, or else its address without any secret."""
        return self.host(engine).name or redact(host_of(engine))

    def _at(self, name: str, host: str | None) -> Engine:
        if name in self._registered:
            engine = self._registered_at(name, host)
        else:
            engine = self._made.get((name, host)) or self._make(name, host)
            self._made[name, host] = engine
        if host is not None and host_of(engine) in address_of(host):
            self._addresses[id(engine)] = host
        return engine

    def _registered_at(self, name: str, host: str | None) -> Engine:
        """Return the registered engine for `host`: a hook may register one for each."""
        engines = self._registered[name]
        address = address_of(host) if host else None
        return next((each for each in engines if address == host_of(each)), engines[0])

    def _make(self, name: str, host: str | None) -> Engine:
        options = self._options
        if name == "lmstudio":
            from pytest_lmstrix.engines.lmstudio.engine import LATE_LOAD_SECONDS, LmStudioEngine

            return LmStudioEngine(
                host,
                load_timeout=options.load_timeout,
                reply_timeout=options.reply_timeout,
                owner=options.owner,
                # A late load gets no longer than any other silent load.
                late_load_seconds=min(LATE_LOAD_SECONDS, options.load_timeout),
                notify=options.notify,
            )
        if name == "ollama":
            from pytest_lmstrix.engines.ollama.engine import OllamaEngine

            return OllamaEngine(
                host,
                load_timeout=options.load_timeout,
                reply_timeout=options.reply_timeout,
                owner=options.owner,
                notify=options.notify,
            )
        if name == "openai":
            from pytest_lmstrix.engines.openai.engine import OpenAiEngine

            return OpenAiEngine(host, reply_timeout=options.reply_timeout)
        if name == "llama-server":
            return self._make_llama_server(host)
        from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine

        return LlamaCppEngine(
            load_timeout=options.load_timeout,
            reply_timeout=options.reply_timeout,
            weights=options.weights,
            logs=options.logs,
        )

    def _make_llama_server(self, host: str | None) -> Engine:
        options = self._options
        if host is not None:
            from pytest_lmstrix.engines.llamacpp.router.engine import LlamaRouterEngine

            return LlamaRouterEngine(
                host,
                load_timeout=options.load_timeout,
                reply_timeout=options.reply_timeout,
                owner=options.owner,
                notify=options.notify,
            )
        from pytest_lmstrix.engines.llamacpp.own_binary import LlamaServerEngine

        return LlamaServerEngine(
            options.llama_server,
            load_timeout=options.load_timeout,
            reply_timeout=options.reply_timeout,
            weights=options.weights,
            owner=options.owner,
            logs=options.logs,
        )

    def close(self) -> None:
        registered = (each for engines in self._registered.values() for each in engines)
        for engine in (*registered, *self._made.values()):
            if isinstance(engine, Closes):
                engine.close()


def facts_of(engine: Engine, model: Model) -> ModelFacts | None:
    """Return the facts that `engine` has of `model` before any load.

    Raises:
        Exception: The query failed; third-party engines may raise anything.
    """
    if isinstance(engine, ReportsFacts):
        return engine.facts(model)
    return next((facts for facts in engine.models() if facts.id == model.name), None)


def host_of(engine: Engine) -> str:
    """Return the host that holds one model at a time."""
    return getattr(engine, "host", None) or engine.name


def attaches(engine: Engine) -> bool:
    """Return whether `engine` loads nothing, so that its host may serve several processes."""
    return getattr(engine, "attaches", False) is True


def version_of(engine: Engine) -> str | None:
    version: str | None = None
    with suppress(Exception):  # third-party engines may raise anything
        version = getattr(engine, "version", None)
    return version
