"""Which hosts a model may use and which of them have it, by their own listings."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from pytest_lmstrix.core.types import Host, Model, ModelFacts
from pytest_lmstrix.engines.catalog import Engines, facts_of, hosts_for
from pytest_lmstrix.plan.hosts.placement import asked_of

# Third-party engines may raise anything, even what ends a program.
_ENGINE_ERRORS = (Exception, SystemExit)


class Found(Struct, frozen=True, kw_only=True):
    """What the listings have on a model."""

    facts: ModelFacts | None = None
    of_engine: tuple[Host, ...] = ()
    """The hosts of its engine; empty if the engine finds its host itself."""
    asked: tuple[Host, ...] = ()
    """Those of them that the model asks for."""
    having: tuple[Host, ...] = ()
    """Those of `asked` that have it."""


class Listings:
    """The listings of the engines; those of hosts are kept, an unreachable one lists nothing."""

    def __init__(self, engines: Engines, hosts: Sequence[Host]) -> None:
        self._engines = engines
        self._hosts = {host.address: host for host in hosts}

    def look_up(self, model: Model) -> Found:
        """Return the facts of `model`, and the hosts of its engine."""
        addresses = hosts_for(model, self._hosts)
        hosts = tuple(self._hosts.get(each) or Host(address=each) for each in addresses)
        asked = asked_of(model, hosts)
        if not hosts:
            return Found(facts=None if model.hosts else self._facts(model, ()))
        if model.url is not None and len(asked) == 1:  # no other host will do
            facts = self._facts(model, [asked[0].address])
            return Found(facts=facts, of_engine=hosts, asked=asked, having=asked)
        found = {host: self._facts(model, [host.address]) for host in asked}
        having = tuple(host for host, facts in found.items() if facts is not None)
        facts = found[having[0]] if having else None
        return Found(facts=facts, of_engine=hosts, asked=asked, having=having)

    def _facts(self, model: Model, hosts: Sequence[str]) -> ModelFacts | None:
        try:
            return facts_of(self._engines.get(model.engine, hosts), model)
        except _ENGINE_ERRORS:
            return None  # the load will fail and report it
