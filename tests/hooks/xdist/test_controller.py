"""The model of a test by its node id, which is all that the controller of xdist has."""

from __future__ import annotations

import pytest

from pytest_lmstrix.core.types import Host, Model
from pytest_lmstrix.hooks.xdist.controller import model_in, places_of

IDS = ["a", "a-b", "a::b", "-m", "list[x]", "u"]
MODELS = {f"{each}-512": each for each in IDS} | {each: each for each in IDS}


@pytest.mark.parametrize(
    ("node_id", "model"),
    [
        ("models.yaml::test_full[a-512]", "a"),
        ("models.yaml::test_limit[a]", "a"),
        ("models.yaml::test_full[a-b-512]", "a-b"),
        ("models.yaml::test_full[a::b-512]", "a::b"),
        ("models.yaml::test_full[-m-512]", "-m"),
        ("models.yaml::test_full[list[x]-512]", "list[x]"),
        ("x[1]/models.yaml::test_full[a-512]", "a"),
        ("x[1]/test_own.py::TestIt::test_own[a-512-1]", "a"),
        ("test_own.py::test_own[a-1024]", "a"),
        ("test_own.py::test_own[u-a-512]", "a"),
        ("test_own.py::test_own[1-u-a-b-512-x-y]", "a-b"),
        ("test_own.py::test_own[1-2]", None),
        ("a-512/test_own.py::test_own", None),
        ("", None),
    ],
)
def test_the_model_is_parsed_from_a_node_id(node_id: str, model: str | None) -> None:
    assert model_in(node_id, MODELS) == model


def test_engines_without_a_host_share_this_machine() -> None:
    engines = ("llamacpp", "llama-server", "ollama", "lmstudio", "mine")
    models = [Model(id=engine, engine=engine) for engine in engines]
    assert places_of(models, ()) == ["here", "mine"]
    hosts = [Host(address="b:1234"), Host(address="a:1234")]
    assert places_of(models, hosts) == ["b:1234", "a:1234", "here", "mine"]
    addresses = ["ollama://b:11434", "a:1234", "openai+http://unused:1"]
    hosts = [Host(address=each) for each in addresses]
    assert places_of(models[2:4], hosts) == ["ollama://b:11434", "a:1234"]


def test_a_host_is_there_for_each_slot_and_only_where_a_model_asks_for_it() -> None:
    hosts = [Host(address="a:1", slots=3, tags=("x",)), Host(address="b:1"), Host(address="c:1")]
    anywhere = Model(id="m", engine="lmstudio")
    asking = Model(id="n", engine="lmstudio", hosts=("x",))
    assert places_of([asking, anywhere], hosts) == ["a:1", "b:1", "c:1", "a:1", "a:1"]
    assert places_of([asking], hosts) == ["a:1"] * 3
    assert places_of([Model(id="o", engine="lmstudio", hosts=("y",))], hosts) == []
