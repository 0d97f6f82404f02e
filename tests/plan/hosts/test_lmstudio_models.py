"""Which LM Studio is asked for the memory of a model."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Host, Model, ModelFacts
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.catalog import Engines
from pytest_lmstrix.plan import lmstudio_models
from tests.standin.fake_engine import FakeEngine


class LmStudio(FakeEngine):
    """Runs at `host`, and lists `id_`; without one it is down."""

    def __init__(self, host: str, id_: str | None, context_limit: int) -> None:
        super().__init__(name="lmstudio")
        self.host = host
        self._facts = None if id_ is None else ModelFacts(id=id_, context_limit=context_limit)

    def models(self) -> list[ModelFacts]:
        if self._facts is None:
            raise Failure(f"{self.host} is down", verdict=Verdict.UNREACHABLE, phase="connect")
        return [self._facts]


def test_a_model_is_looked_up_on_the_hosts_that_it_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engines = Engines(
        LmStudio(host, id_, size)
        for host, id_, size in (("a:1", "m", 1024), ("b:1", "m", 2048), ("c:1", None, 0))
    )
    monkeypatch.setattr(lmstudio_models, "Engines", lambda: engines)
    hosts = [
        Host(address="a:1", name="small"),
        Host(address="b:1", name="big", tags=("gpu",)),
        Host(address="c:1", name="down"),
        Host(address="ollama://d:1", name="other"),
    ]
    studio = lmstudio_models.LmStudioModels(hosts, ())
    studio.request()

    def limit(id_: str, *asked: str) -> int | str | None:
        try:
            return studio.context_limit(Model(id=id_, engine="lmstudio", hosts=asked))
        except Failure as failure:
            return failure.text

    assert (limit("m"), limit("m", "gpu")) == (1024, 2048)
    assert limit("m", "down") == limit("n") == "not reported: c:1 is down"
    assert limit("n", "small") == "not reported: LM Studio does not list it"
    assert limit("m", "other") == "not reported: it asks for hosts of which this run has none"
