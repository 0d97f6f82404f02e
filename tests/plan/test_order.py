"""The order of a run and of the list, with and without cached estimates of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("xllamacpp")

from pytest_lmstrix.plan import memory
from pytest_lmstrix.weights import header
from tests.end_to_end.project import Project
from tests.standin import header_file


@pytest.fixture
def two_models(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """`long` declares more context than `wide`, but needs less memory at 512 tokens."""
    monkeypatch.setenv("LMSTRIX_CACHE_DIR", str(tmp_path / "cache"))
    shape = {"inner": 256, "heads": 4, "kv_heads": 4}
    header_file.write_llama(
        project.path / "long.gguf", layers=1, width=128, context_length=131_072, **shape
    )
    header_file.write_llama(
        project.path / "wide.gguf", layers=8, width=1024, context_length=4_096, **shape
    )
    project.manifest(
        "[{id: long, engine: llamacpp, source: long.gguf, contexts: [512], context_limit: 131072},"
        " {id: wide, engine: llamacpp, source: wide.gguf, contexts: [512], context_limit: 4096}]"
    )
    return project


def order_of_run(project: Project) -> list[str]:
    return [each.partition("[")[2][:4] for each in project.ids("--lmstrix", "-m", "fast")]


def order_of_list(project: Project) -> list[str]:
    return project.run("--lmstrix-list", "-q").outlines[:2]


def test_the_smart_order_is_that_of_the_formula_without_estimates(two_models: Project) -> None:
    assert order_of_run(two_models) == order_of_list(two_models) == ["wide", "long"]


def test_estimates_of_the_memory_order_the_run_and_the_list(two_models: Project) -> None:
    assert two_models.run("--lmstrix-fit").ret == 0
    assert order_of_run(two_models) == order_of_list(two_models) == ["long", "wide"]


def test_an_estimate_of_one_model_stands_beside_the_formula_of_another(two_models: Project) -> None:
    assert two_models.run("--lmstrix-fit", "-k", "long").ret == 0
    assert order_of_run(two_models) == order_of_list(two_models) == ["long", "wide"]


def test_an_estimate_of_another_file_orders_nothing(two_models: Project) -> None:
    assert two_models.run("--lmstrix-fit").ret == 0
    path = two_models.path / "long.gguf"
    header_file.write_llama(path, layers=2, width=128, inner=256, heads=4, kv_heads=4)
    assert order_of_run(two_models) == ["wide", "long"]


def test_no_header_is_read_again_for_the_order(
    two_models: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise AssertionError(f"the header of {path} is read again")

    assert two_models.run("--lmstrix-fit").ret == 0
    monkeypatch.setattr(header, "header_digest", refuse)
    assert order_of_list(two_models) == ["long", "wide"]


def test_without_estimates_no_model_file_is_looked_up(
    two_models: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **more: object) -> Path:
        raise AssertionError("a model file is looked up")

    monkeypatch.setattr(memory.MemoryEstimator, "file", refuse)
    assert order_of_list(two_models) == ["wide", "long"]
