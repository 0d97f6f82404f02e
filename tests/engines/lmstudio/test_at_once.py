"""`parallel`: several requests at once to one instance."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LoadSettings, Model
from pytest_lmstrix.core.verdicts import Verdict
from tests.engines.lmstudio.studio import Watched, when
from tests.standin.lmstudio import Fault, GrantsAtMost, SharesContext, StandInModel

TWO = Model(id="tiny", engine="lmstudio", load=LoadSettings(parallel=2))
FOUR = Model(id="tiny", engine="lmstudio", load=LoadSettings(parallel=4))
QUESTIONS = ("6 + 3 =", "2 + 3 =")


def asks(instance: Any) -> list[Any]:
    return [partial(instance.complete, text, max_tokens=4) for text in QUESTIONS]


def test_a_load_asks_for_slots_with_the_whole_size_each(studio: Any) -> None:
    own = studio(version="0.4.24")
    instance = own.engine.load(TWO, 4096, Watched())
    (call,) = own.server.named("loadModel")
    assert call.config["llm.load.contextLength"] == 8192
    assert call.config["llm.load.numParallelSessions"] == 2
    assert (instance.context_length, instance.usable_context_length) == (4096, 4096)
    assert instance.ignored_settings == ()
    instance.unload()


def test_requests_at_once_are_in_progress_together(studio: Any) -> None:
    own = studio(faults=(Fault(where="prefill", kind="hang", times=2),), version="0.4.24")
    watched = Watched()
    instance = own.engine.load(TWO, 4096, watched)
    release = when(own.server, lambda: own.server.faults_left() == (), own.server.release)
    nine, five = instance.at_once(asks(instance))
    release.join()
    assert ("9" in nine.text, "5" in five.text) == (True, True)
    assert watched.prefilled[-1][0] == watched.prefilled[-1][1]
    instance.unload()


def test_a_silence_of_all_of_them_times_out_and_unloads(studio: Any) -> None:
    own = studio(
        faults=(Fault(where="prefill", kind="hang", times=2),), version="0.4.24", reply_timeout=0.5
    )
    instance = own.engine.load(TWO, 4096, Watched())
    with pytest.raises(Failure, match=r"none of the requests at once moved for 0\.5 s") as failed:
        instance.at_once(asks(instance))
    assert (failed.value.verdict, failed.value.phase) == (Verdict.TIMEOUT, "predict")
    assert own.ours() == []
    own.load().unload()


@pytest.mark.parametrize("behaviour", [GrantsAtMost(tokens=32_768), SharesContext(slots=16)])
def test_what_all_slots_share_is_granted_to_each_in_part(studio: Any, behaviour: Any) -> None:
    own = studio(StandInModel(key="tiny", behaviours=(behaviour,)), version="0.4.24")
    instance = own.engine.load(FOUR, 32_768, Watched())
    assert min(instance.context_length, instance.usable_context_length) == 8192
    instance.unload()


def test_a_version_without_slots_answers_one_after_the_other(studio: Any) -> None:
    own = studio(version="0.3.30")
    instance = own.engine.load(TWO, 4096, Watched())
    assert instance.ignored_settings == ("parallel",)
    assert len(instance.at_once(asks(instance))) == 2
    instance.unload()
