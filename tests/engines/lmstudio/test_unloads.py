"""Unloads in LM Studio: confirmed, repeated, and of our own instances only."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.lmstudio import connection
from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine
from tests.engines.lmstudio.studio import MODEL, Watched, when
from tests.standin.lmstudio import Fault, ServerError

REFUSED = ServerError(title="Model unloading is not allowed.")
NOT_LOADED = ServerError(
    title="No model found that fits the query.",
    display_data={"code": "generic.noModelMatchingQuery"},
)


def test_unload_is_idempotent_and_keeps_other_instances(studio: Any) -> None:
    own = studio()
    instance = own.load()
    instance.unload()
    instance.unload()
    assert len(own.server.unloads()) == 1
    assert own.server.loaded() == ("tiny",)


def test_a_missing_instance_counts_as_unloaded(studio: Any) -> None:
    own = studio()
    instance = own.load()
    own.server.unload_for_user(instance.identifier)
    instance.unload()
    assert own.server.calls[-1].endpoint == "listLoaded"
    assert own.server.loaded() == ("tiny",)


def test_an_instance_that_disappears_during_unload_counts_as_unloaded(studio: Any) -> None:
    gone = Fault(where="unloadModel", kind="error", error=NOT_LOADED)
    own = studio(faults=(gone,))
    instance = own.load()
    release = when(
        own.server,
        lambda: len(own.server.unloads()) == 1,
        lambda: own.server.unload_for_user(instance.identifier),
    )
    instance.unload()
    release.join()


def test_an_unload_without_an_answer_is_checked_in_the_listing(
    studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = studio(faults=(Fault(where="unloadModel", kind="hang"),))
    instance = own.load()
    monkeypatch.setattr(connection, "RPC_SECONDS", 1.0)
    done = when(
        own.server,
        lambda: own.server.unloads() != [] and own.server.calls[-1].endpoint == "listLoaded",
        lambda: own.server.unload_for_user(instance.identifier),
    )
    instance.unload()
    done.join()
    assert own.ours() == []


@pytest.mark.parametrize(
    "fault", [{"kind": "error", "error": REFUSED}, {"kind": "ignore"}], ids=["refused", "ignored"]
)
def test_an_unload_that_fails_once_is_tried_again_at_once(
    studio: Any, fault: dict[str, Any]
) -> None:
    own = studio(faults=(Fault(where="unloadModel", **fault),), unload_seconds=0.0)
    own.load().unload()
    assert own.ours() == []
    assert len(own.server.unloads()) == 2


def test_an_unload_that_fails_twice_is_tried_again_before_the_next_load(studio: Any) -> None:
    own = studio(faults=(Fault(where="unloadModel", kind="error", times=2, error=REFUSED),))
    stale = own.load()
    with pytest.raises(Failure, match="Model unloading is not allowed"):
        stale.unload()
    following = own.load()
    assert own.ours() == [following.identifier]
    following.unload()


def test_a_refused_unload_is_reported(studio: Any) -> None:
    own = studio(faults=(Fault(where="unloadModel", kind="error", times=2, error=REFUSED),))
    instance = own.load()
    with pytest.raises(Failure, match="Model unloading is not allowed") as failed:
        instance.unload()
    assert failed.value.phase == "unload"
    instance.unload()


def test_an_unload_without_effect_is_detected(studio: Any) -> None:
    ignored = Fault(where="unloadModel", kind="ignore", times=2)
    own = studio(faults=(ignored,), unload_seconds=0.0)
    instance = own.load()
    with pytest.raises(Failure, match="still lists") as failed:
        instance.unload()
    assert (failed.value.phase, failed.value.verdict) == ("unload", Verdict.ENGINE_ERROR)
    instance.unload()


def test_a_slow_unload_is_awaited(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = studio(faults=(Fault(where="unloadModel", kind="ignore"),))
    instance = own.load()

    def later(seconds: float) -> None:
        if instance.identifier in own.server.loaded():
            own.server.unload_for_user(instance.identifier)

    monkeypatch.setattr("pytest_lmstrix.engines.lmstudio.engine.time.sleep", later)
    instance.unload()
    assert own.ours() == []


def test_instances_of_other_owners_are_not_unloaded(studio: Any) -> None:
    own = studio()
    with pytest.raises(ValueError, match="not one of our instances"):
        own.engine.unload("tiny")


def test_sweep_unloads_only_instances_of_dead_owners(studio: Any) -> None:
    own = studio()
    mine = own.load()
    left = LmStudioEngine(own.server.host, owner="me-1-dead")
    stale = left.load(MODEL, 4096, Watched())
    left.link.drop()
    asked: list[str] = []

    def is_dead(owner: str) -> bool:
        asked.append(owner)
        return owner == "me-1-dead"

    assert own.engine.sweep(is_dead) == [stale.identifier]
    assert sorted(asked) == ["me-1", "me-1-dead"]
    assert own.ours() == [mine.identifier]
    mine.unload()


def test_a_leftover_that_cannot_be_unloaded_is_only_logged(
    studio: Any, caplog: pytest.LogCaptureFixture
) -> None:
    own = studio(faults=(Fault(where="unloadModel", kind="error", times=2, error=REFUSED),))
    stale = own.load()
    assert own.engine.sweep(lambda owner: True) == []
    assert f"may have {stale.identifier} still loaded" in caplog.text
    stale.unload()
