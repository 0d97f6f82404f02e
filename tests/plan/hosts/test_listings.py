"""Which hosts have a model, by listings of which some are missing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Host, Model, ModelFacts
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.catalog import Engines
from pytest_lmstrix.plan.hosts.listings import Listings
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio.models.model import StandInModel


class HostEngine(FakeEngine):
    """Runs at `host`; one that is down asks its server once, as the built-in engines do."""

    def __init__(self, host: str, *models: str, verdict: Verdict | None = None) -> None:
        super().__init__(tuple(StandInModel(key=key) for key in models))
        self.host = host
        self.asked = 0
        self._verdict = verdict

    def facts(self, model: Model) -> ModelFacts | None:
        self.asked += 1
        if self._verdict is not None and self.asked == 1:
            raise Failure(f"{self.host} is silent", verdict=self._verdict, phase="connect")
        return next((each for each in self.models() if each.id == model.name), None)


def having(engines: Mapping[str, HostEngine], *models: Model) -> list[list[str]]:
    """Return the names of the hosts that have each of `models`."""
    hosts = [Host(address=f"fake://{each.host}", name=name) for name, each in engines.items()]
    listings = Listings(Engines(engines.values(), hosts=hosts), hosts)
    return [[str(host.name) for host in listings.look_up(model).having] for model in models]


def model(id_: str, *hosts: str) -> Model:
    return Model(id=id_, engine="fake", hosts=hosts)


@pytest.mark.parametrize("verdict", [Verdict.UNREACHABLE, Verdict.TIMEOUT])
def test_a_model_that_no_listing_has_is_not_missing_while_a_host_is_silent(
    verdict: Verdict,
) -> None:
    down = HostEngine("127.0.0.1:1", verdict=verdict)
    engines = {"down": down, "up": HostEngine("127.0.0.1:2", "tiny")}
    asked = model("tiny"), model("other"), model("third"), model("bound", "up")
    assert having(engines, *asked) == [["up"], ["down"], ["down"], []]
    assert down.asked == 1, "a silent host is asked once"


def test_a_host_that_answers_that_it_has_no_such_model_is_not_silent() -> None:
    absent = HostEngine("127.0.0.1:1", verdict=Verdict.MODEL_NOT_FOUND)
    engines = {"absent": absent, "up": HostEngine("127.0.0.1:2", "tiny")}
    assert having(engines, model("other")) == [[]]


def test_where_no_host_answers_none_is_preferred() -> None:
    engines = {
        name: HostEngine(host, verdict=Verdict.UNREACHABLE)
        for name, host in (("one", "127.0.0.1:1"), ("two", "127.0.0.1:2"))
    }
    assert having(engines, model("tiny")) == [[]]
