"""`Registry.recommended`: the context length to set in other programs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pytest_lmstrix import Recommendation, Registry
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.fold import Fold
from pytest_lmstrix.registry.recommended import recommend
from pytest_lmstrix.system.machine_id import machine_id
from tests.registry.results import a_result

HERE = "this machine"
MODEL_VERDICTS = [verdict for verdict in Verdict if verdict.evidence == "model"]


def recommended(*results: Result, **which: str) -> Recommendation | None:
    fold = Fold()
    for result in results:
        fold.add(result)
    return recommend("m", fold.known("m"), machine=HERE, **which)  # type: ignore[arg-type]


def size(*results: Result, **which: str) -> int | None:
    found = recommended(*results, **which)
    return found.context_length if found else None


def here(context_length: int = 8192, verdict: str = "ok", **fields: object) -> Result:
    return a_result(context_length, verdict, **{"machine": HERE, **fields})


def test_the_recommendation_has_its_proof() -> None:
    at = datetime(2026, 3, 2, tzinfo=UTC)
    found = recommended(
        here(4096, at=datetime(2026, 3, 3, tzinfo=UTC), engine_version="0.4.2"),
        here(8192, check="deep", at=at, engine_version="0.4.1", settings='{"threads":2}'),
        here(8192, check="full", at=at, engine_version="0.4.0"),
        engine="lmstudio",
        settings='{"threads":2}',
    )
    assert found == Recommendation(
        model="m",
        context_length=8192,
        check="deep",
        at=at,
        engine="lmstudio",
        engine_version="0.4.1",
        machine=HERE,
        fingerprint="size:1",
        settings='{"threads":2}',
    )


def test_the_check_can_be_chosen() -> None:
    lines = here(4096, check="deep"), here(8192), here(9000, check="limit")
    assert size(*lines) == 9000
    assert size(*lines, check="full") == 9000
    assert size(*lines, check="deep") == 4096


def test_nothing_at_or_above_a_failing_size_is_recommended() -> None:
    assert size(here(8192), here(4096), here(6000, "out_of_memory")) == 4096
    assert size(here(8192), here(8192, "out_of_memory")) is None


@pytest.mark.parametrize("verdict", MODEL_VERDICTS)
def test_nothing_is_recommended_while_the_model_is_missing_or_corrupted(verdict: str) -> None:
    assert size(here(4096), here(8192, verdict)) is None
    assert size(here(8192, verdict), here(4096)) == 4096


def test_results_of_other_machines_neither_verify_nor_prevent() -> None:
    assert size(a_result(8192, machine="other")) is None
    assert size(here(8192), a_result(4096, "out_of_memory", machine="other")) == 8192
    moved = a_result(4096, machine="other", fingerprint="size:1 path:/elsewhere", settings="{}")
    assert size(here(8192), moved) == 8192


def test_an_unknown_machine_can_only_prevent() -> None:
    assert size(a_result(8192)) is None
    assert size(here(8192), a_result(8192, "out_of_memory")) is None


def test_the_newest_weights_engine_and_settings_count() -> None:
    old, new = here(8192), here(4096, fingerprint="size:2")
    assert size(old, new) == 4096
    assert size(old, new, fingerprint="size:1") == 8192
    other = here(4096, engine="llamacpp")
    assert size(old, other) == 4096
    assert size(old, other, engine="lmstudio") == 8192
    assert size(old, here(4096, settings='{"threads":2}')) == 4096
    assert size(old, here(4096, settings='{"threads":2}'), settings="") == 8192


def test_unknown_weights_are_not_recommended() -> None:
    assert size(here(8192, fingerprint=None)) is None


def test_the_registry_recommends_for_this_machine(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.jsonl")
    assert registry.recommended("m") is None
    registry.append(a_result(4096, machine=machine_id()))
    registry.append(a_result(8192, machine=HERE))
    found = registry.recommended("m")
    assert found is not None
    assert (found.context_length, found.check) == (4096, "full")
    elsewhere = registry.recommended("m", machine=HERE)
    assert elsewhere is not None
    assert elsewhere.context_length == 8192
