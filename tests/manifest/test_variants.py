"""Lists of load settings make variants of a model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_lmstrix.core.types import LoadSettings, Model, ModelFacts
from pytest_lmstrix.manifest.append import append_models, model_of
from pytest_lmstrix.manifest.read import ManifestError, parse_manifest


def read(text: str) -> tuple[Model, ...]:
    return parse_manifest(f"models:\n{text}".encode(), Path("models.yaml")).models


def test_a_list_makes_a_variant_for_each_value() -> None:
    first, second = read("- {id: a, load: {kv_cache_type: [f16, q8_0], threads: 2}}")
    assert (first.id, first.name) == ("a+f16", "a")
    assert first.load == LoadSettings(kv_cache_type="f16", threads=2)
    assert (second.id, second.variant_of) == ("a+q8_0", "a")
    assert second.load == LoadSettings(kv_cache_type="q8_0", threads=2)


def test_several_lists_make_all_combinations() -> None:
    ids = [
        model.id
        for model in read(
            "- {id: a, load: {kv_cache_type: [f16, q4_0], flash_attention: [true, false],"
            " batch_size: [128], gpu_layers: [0, 20]}}"
        )
    ]
    assert len(ids) == len(set(ids)) == 8
    assert ids[0] == "a+f16+flash+batch128+gpu0"
    assert ids[-1] == "a+q4_0+noflash+batch128+gpu20"


def test_a_value_of_a_model_replaces_a_list_of_the_defaults() -> None:
    text = (
        "defaults: {load: {kv_cache_type: [f16, q8_0]}}\n"
        "models: [{id: a}, {id: b, load: {kv_cache_type: f32}}]"
    )
    models = parse_manifest(text.encode(), Path("models.yaml")).models
    assert [model.id for model in models] == ["a+f16", "a+q8_0", "b"]


def test_an_embedding_model_has_no_variants() -> None:
    (model,) = read("- {id: a, type: embedding, load: {threads: [1, 2], batch_size: 8}}")
    assert (model.id, model.load) == ("a", LoadSettings(batch_size=8))


@pytest.mark.parametrize(
    ("load", "problem"),
    [
        ("kv_cache_type: [f16,\n     q9]", "models.yaml:3: model 'a': load: kv_cache_type must be"
         " one of f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl, got 'q9'"),
        ("batch_size: [8,\n    8]", "models.yaml:3: model 'a': load: batch_size must differ from"
         " each other, got 8"),
        ("threads: [[1]]", "models.yaml:2: model 'a': load: threads must be a whole number,"
         " got a list"),
        ("threads: []", "models.yaml:2: model 'a': load: threads must be a whole number,"
         " got an empty list"),
        (f"threads: {list(range(1, 66))}", "models.yaml:2: model 'a': load must make at most 64"
         " variants of a model, got 65"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_list_names_its_line_and_value(load: str, problem: str) -> None:
    with pytest.raises(ManifestError) as raised:
        read(f"- {{id: a, load: {{{load}}}}}")
    assert str(raised.value).startswith(problem)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_id_of_a_variant_must_not_be_that_of_another_model(reverse: bool) -> None:
    entries = ["- {id: a, load: {threads: [1, 2]}}\n", "- {id: a+threads2}\n"]
    with pytest.raises(ManifestError, match=r"^models.yaml:3: .*is taken already, by line 2$"):
        read("".join(reversed(entries) if reverse else entries))


def test_a_scan_does_not_append_a_model_that_has_variants(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("models:\n  - {id: a, load: {threads: [1, 2]}}\n")
    assert append_models(path, [model_of(ModelFacts(id="a"), "lmstudio")]) == ()


def test_a_scan_appends_one_entry_where_the_defaults_make_variants(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("defaults: {load: {threads: [1, 2]}}\nmodels:\n  - id: a\n")
    (appended,) = append_models(path, [model_of(ModelFacts(id="b"), "lmstudio")])
    assert (appended.id, appended.variant_of) == ("b", None)
    assert path.read_text().endswith("  - id: a\n  - id: b\n    engine: lmstudio\n")


def test_lists_of_a_program_make_no_variants() -> None:
    (model,) = read(
        "- {id: a, load: {tensor_split: [3, 1], extra_args: [--swa-full, --poll, '0'],"
        " n_cpu_moe: 2}}"
    )
    assert model.id == "a"
    assert model.load == LoadSettings(
        tensor_split=(3.0, 1.0), extra_args=("--swa-full", "--poll", "0"), n_cpu_moe=2
    )
    slots = read("- {id: a, load: {parallel: [1, 4]}}")
    assert [(each.id, each.load.requests) for each in slots] == [
        ("a+parallel1", 1),
        ("a+parallel4", 4),
    ]
    two = read("- {id: a, load: {n_cpu_moe: [0, 8], tensor_split: [3, 1]}}")
    assert [each.id for each in two] == ["a+cpumoe0", "a+cpumoe8"]


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        ("extra_args: --swa-full", "extra_args must be a list of texts"),
        ("extra_args: [--poll, 0]", "extra_args must be texts (in quotes)"),
        ("extra_args: [--port, '80']", "must not hold --port, which the plugin sets itself"),
        ("extra_args: [-c, '80']", "must not hold -c, which the plugin sets itself"),
        ("extra_args: [--api-key=x]", "must not hold --api-key, which the plugin sets itself"),
        ("tensor_split: 3", "tensor_split must be a list of numbers"),
        ("tensor_split: [-1]", "tensor_split must be numbers from 0"),
    ],
)
def test_arguments_that_are_not_valid_are_named(load: str, reason: str) -> None:
    with pytest.raises(ManifestError, match=re.escape(reason)):
        read(f"- {{id: a, load: {{{load}}}}}")
