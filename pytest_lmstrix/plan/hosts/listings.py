"""Which hosts a model may use and which of them have it, by their own listings."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
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
    """Those of `asked` that have it, or may have it: if none does, those that did not answer."""


class Listings:
    """The listings of the engines; those of hosts are kept, and a silent one is asked once."""

    def __init__(self, engines: Engines, hosts: Sequence[Host]) -> None:
        self._engines = engines
        self._hosts = {host.address: host for host in hosts}
        self._silent: set[str] = set()
        """Addresses of hosts that gave no listing."""

    def look_up(self, model: Model) -> Found:
        """Return the facts of `model`, and the hosts of its engine."""
        addresses = hosts_for(model, self._hosts)
        hosts = tuple(self._hosts.get(each) or Host(address=each) for each in addresses)
        asked = asked_of(model, hosts)
        if not hosts:
            return Found(facts=None if model.hosts else self._facts(model, ())[0])
        if model.url is not None and len(asked) == 1:  # no other host will do
            facts, _ = self._facts(model, [asked[0].address])
            return Found(facts=facts, of_engine=hosts, asked=asked, having=asked)
        found = {host: self._facts(model, [host.address]) for host in asked}
        having = tuple(host for host, (facts, _) in found.items() if facts is not None)
        facts = found[having[0]][0] if having else None
        if not having and any(answered for _, answered in found.values()):
            # It is not missing while a host that may have it is silent: that one has to be asked.
            having = tuple(host for host, (_, answered) in found.items() if not answered)
        return Found(facts=facts, of_engine=hosts, asked=asked, having=having)

    def _facts(self, model: Model, hosts: Sequence[str]) -> tuple[ModelFacts | None, bool]:
        """Return the facts of `model`, and whether there was an answer."""
        if not self._silent.isdisjoint(hosts):
            return None, False
        try:
            return facts_of(self._engines.get(model.engine, hosts), model), True
        except Failure as failure:
            if failure.verdict.subject == "model":
                return None, True
            self._silent.update(hosts)
        except _ENGINE_ERRORS:
            pass
        return None, False  # the load will fail and report it
