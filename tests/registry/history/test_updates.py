"""An engine with another version than before is always reported."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pytest_lmstrix.registry.history.updates import EngineUpdate, EngineVersions, update_text
from tests.registry.results import a_result

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def updates(before: list[dict[str, Any]], **now: Any) -> list[str]:
    versions = EngineVersions()
    for fields in before:
        versions.add(a_result(**fields))
    return [update_text(update) for update in versions.updates([a_result(**now)])]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("0.3.9", "0.3.10", "LM Studio updated from 0.3.9 to 0.3.10"),
        ("0.3.10", "0.3.9", "LM Studio went back from 0.3.10 to 0.3.9"),
        ("b4567", "b4568", "LM Studio updated from b4567 to b4568"),
    ],
)
def test_the_direction_of_an_update_is_named(before: str, after: str, text: str) -> None:
    assert updates([{"engine_version": before}], engine_version=after) == [text]


def test_the_newest_version_before_counts() -> None:
    before = [{"engine_version": "1"}, {"engine_version": "2"}]
    assert updates(before, engine_version="2") == []
    assert updates(before, engine_version="3") == ["LM Studio updated from 2 to 3"]


def test_a_version_seen_with_another_model_counts() -> None:
    before = [{"engine_version": "1"}, {"engine_version": "2", "model": "other"}]
    assert updates(before, engine_version="2") == []


@pytest.mark.parametrize(
    "elsewhere", [{"machine": "other"}, {"host": "gpu-box:1234"}, {"engine": "ollama"}]
)
def test_versions_elsewhere_are_not_compared(elsewhere: dict[str, str]) -> None:
    assert updates([{"engine_version": "1", **elsewhere}], engine_version="2") == []


def test_a_remote_host_is_named() -> None:
    host = {"engine": "ollama", "host": "gpu-box:11434"}
    assert updates([{"engine_version": "1", **host}], engine_version="2", **host) == [
        "Ollama on gpu-box:11434 updated from 1 to 2"
    ]


def test_an_engine_without_hosts_is_named_once() -> None:
    here = {"engine": "llamacpp", "host": "llamacpp"}
    assert updates([{"engine_version": "1", **here}], engine_version="2", **here) == [
        "llama.cpp updated from 1 to 2"
    ]


@pytest.mark.parametrize("unknown", [{"engine_version": None}, {"imported": True}])
def test_results_without_a_version_say_nothing(unknown: dict[str, Any]) -> None:
    assert updates([{"engine_version": "1", **unknown}], engine_version="2") == []


def test_an_update_knows_when_the_version_before_was_last_used() -> None:
    versions = EngineVersions()
    versions.add(a_result(engine_version="1"))
    (update,) = versions.updates([a_result(engine_version="2"), a_result(engine_version="2")])
    assert update == EngineUpdate(engine="lmstudio", before="1", after="2", last_used=AT)
