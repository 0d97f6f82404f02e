"""The plan on its way to the workers: small, and made once however many workers there are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.core.types import LoadSettings, Model
from pytest_lmstrix.hooks.xdist.controller import Scheduling
from pytest_lmstrix.hooks.xdist.worker import HOSTS, own_hosts, pack_plan, unpack_plan
from pytest_lmstrix.plan.plan import KnownRange, Plan, PlannedModel
from pytest_lmstrix.wake import PLAN

SIZES = (4_096, 8_192, 16_384, 32_768, 65_536, 98_304, 120_000, 131_071)


def plan(models: int, **fields: Any) -> Plan:
    return Plan(
        run="0" * 12,
        models=tuple(
            PlannedModel(
                model=Model(
                    id=f"publisher-{number % 100}/model-{number:05}-7b-instruct",
                    engine="openai",
                    url=f"http://127.0.0.1:{9 + number % 2}",
                    context_limit=131_072,
                    size_bytes=1_000_000_000 + number * 987_653,
                    contexts=SIZES,
                ),
                context_lengths=SIZES,
                seconds=number / 7,
            )
            for number in range(models)
        ),
        **fields,
    )


names = st.text(min_size=1, max_size=20)


@given(names, st.lists(st.integers(1, 2**31 - 1), min_size=1), st.floats(0, 1e9), names)
def test_workers_receive_the_plan_as_it_is(
    name: str, sizes: list[int], seconds: float, key: str
) -> None:
    load = LoadSettings(tensor_split=(1.0, 0.5), kv_cache_type="q8_0")
    model = Model(id=name, engine="fake", tags=(key,), load=load)
    sent = Plan(
        run="a",
        models=(PlannedModel(model=model, context_lengths=tuple(sizes), seconds=seconds),),
        known={key: 1},
        ranges={key: KnownRange(good=1)},
        speeds={key: {1: seconds}},
    )
    assert unpack_plan(pack_plan(sent)) == sent


def test_a_case_takes_few_bytes() -> None:
    known = {f"full[{each.model.id}-{size}]": 1 for each in plan(500).models for size in SIZES}
    assert len(pack_plan(plan(500))) < 5 * 500 * len(SIZES)
    assert len(pack_plan(plan(500, known=known))) < 10 * 500 * len(SIZES)


def test_the_plan_is_encoded_once_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Plan] = []

    def pack(each: Plan) -> bytes:
        encoded.append(each)
        return pack_plan(each)

    monkeypatch.setattr("pytest_lmstrix.hooks.xdist.controller.pack_plan", pack)
    sent = plan(3)
    scheduling = Scheduling(sent, lambda: None, lambda _: None)
    workers: list[Any] = [
        SimpleNamespace(gateway=SimpleNamespace(id=f"gw{number}"), workerinput={})
        for number in range(3)
    ]
    assert encoded == []  # a run without workers encodes nothing
    for worker in workers:
        scheduling.pytest_configure_node(worker)
    assert encoded == [sent]
    assert [unpack_plan(worker.workerinput[PLAN]) for worker in workers] == [sent] * 3


def test_a_worker_prefers_the_hosts_that_it_was_given() -> None:
    config: Any = SimpleNamespace(workerinput={HOSTS: ["b:1"]})
    assert own_hosts(config, ["a:1", "b:1"]) == ["b:1"]
    assert own_hosts(SimpleNamespace(), ["a:1", "b:1"]) == ["a:1", "b:1"]  # type: ignore[arg-type]
