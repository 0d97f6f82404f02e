"""Memory that others hold is the host's trouble, and only where they are known to hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from pytest_lmstrix.core.types import Case, Model, Result
from pytest_lmstrix.core.verdicts import Verdict
from tests.checks.laboratory import SKIPPED, Run, loader_for
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio import StandInModel
from tests.standin.lmstudio.models.behaviours import FailsToLoad

KILLED = "The model has crashed without additional information. (Exit code: 137)"
OUT = "llama.cpp ended: killed by SIGKILL\nmeanwhile the system killed a process: out of memory"
SEGFAULT = "The model has crashed without additional information. (Exit code: 139)"
GB = 10**9


class Shared(FakeEngine):
    """An engine with other instances in memory; `None` where it cannot list them."""

    def __init__(
        self,
        text: str,
        others: Mapping[str, int | None] | None,
        keys: Sequence[str] = ("tiny",),
    ) -> None:
        fail = (FailsToLoad(text=text),)
        models = [StandInModel(key=key, behaviours=fail) for key in keys]
        super().__init__((*models, StandInModel(key="small")))
        self._others = others

    def others(self) -> Mapping[str, int | None]:
        if self._others is None:
            raise RuntimeError("no list")
        return self._others


def verdict_of(engine: FakeEngine) -> Result:
    model = Model(id="tiny", engine="fake", context_limit=8_192, size_bytes=GB)
    results = Run(loader_for(engine)).check("full", [Case(model=model, context_length=8_192)])
    found = results[8_192]
    assert found is not SKIPPED
    return found[0]


@pytest.mark.parametrize("text", [KILLED, OUT])
@pytest.mark.parametrize("size", [None, GB, 20 * GB])
def test_a_process_killed_beside_instances_of_others_is_host_trouble(
    text: str, size: int | None
) -> None:
    result = verdict_of(Shared(text, {"big": size}))
    assert result.verdict is Verdict.HOST_TROUBLE
    assert "big" in result.detail
    assert "does not count against tiny" in result.detail


@pytest.mark.parametrize("others", [None, {}, {"small": GB // 100}])
def test_a_process_killed_without_such_instances_keeps_its_verdict(
    others: Mapping[str, int | None] | None,
) -> None:
    assert verdict_of(Shared(KILLED, others)).verdict is Verdict.CRASHED
    assert verdict_of(Shared(OUT, others)).verdict is Verdict.OUT_OF_MEMORY


def test_a_crash_of_its_own_is_not_excused_by_instances_of_others() -> None:
    assert verdict_of(Shared(SEGFAULT, {"big": 20 * GB})).verdict is Verdict.CRASHED


def test_an_engine_without_a_list_of_others_reports_a_lack_of_memory() -> None:
    engine = FakeEngine((StandInModel(key="tiny", behaviours=(FailsToLoad(text=OUT),)),))
    assert verdict_of(engine).verdict is Verdict.OUT_OF_MEMORY


def test_three_models_without_room_beside_others_keep_no_smaller_one_from_its_test() -> None:
    keys = ("a", "b", "c", "d")
    engine = Shared(OUT, {"big": 20 * GB}, keys)
    run = Run(loader_for(engine))
    for key in (*keys, "small"):
        model = Model(id=key, engine="fake", context_limit=8_192, size_bytes=GB)
        found = run.check("full", [Case(model=model, context_length=8_192)])[8_192]
        assert found is not SKIPPED
        assert [each.verdict for each in found] == [
            Verdict.OK if key == "small" else Verdict.HOST_TROUBLE
        ]
