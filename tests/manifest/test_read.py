"""Reading models.yaml: all valid keys."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_lmstrix.core.types import Case, LoadSettings, Model
from pytest_lmstrix.manifest.read import (
    ManifestError,
    read_manifest,
)
from tests.manifest.reading import read

FULL = """\
# the team's models
defaults:
  engine: llamacpp
  contexts: [2048, 4096]
  load: {threads: 2, flash_attention: yes}
  prompts: chat
  tags: [nightly]
models:
  - id: plain
  - id: qwen/qwen3-4b@q4::[x] y 🚀
    engine: lmstudio
    context_limit: 131_072
    size_bytes: 2019377696
    tags: [a, b]
    contexts: ladder
    source: hf://owner/repo/sub/file.gguf@main
    sha256: B179C9523D0E6A0F98A330C7562B682750A6F8C8C15E5BC70EA373728110DB53
    load: {threads: 4, kv_cache_type: q8_0, gpu_layers: 0, gpu_offload: 1, batch_size: 64}
    prompts: completion
    answer_tokens: 3000
    type: llm
    architecture: qwen3
    quantization: Q4_K_M
    capabilities: [vision, tools]
  - id: embedder
    type: embedding
    context_limit: 2048
  - {id: small, context_limit: 3000}
  - {id: tiny, context_limit: 512}
"""


def test_every_key_is_read() -> None:
    plain, full, embedder, small, tiny = read(FULL)
    assert full == Model(
        id="qwen/qwen3-4b@q4::[x] y 🚀",
        engine="lmstudio",
        context_limit=131072,
        size_bytes=2019377696,
        tags=("a", "b"),
        contexts=None,
        source="hf://owner/repo/sub/file.gguf@main",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        load=LoadSettings(
            threads=4,
            flash_attention=True,
            kv_cache_type="q8_0",
            gpu_layers=0,
            gpu_offload=1.0,
            batch_size=64,
        ),
        prompts="completion",
        answer_tokens=3_000,
        type="llm",
        architecture="qwen3",
        quantization="Q4_K_M",
        capabilities=("vision", "tools"),
    )
    assert plain == Model(
        id="plain",
        engine="llamacpp",
        contexts=(2048, 4096),
        load=LoadSettings(threads=2, flash_attention=True),
        prompts="chat",
        tags=("nightly",),
    )
    assert embedder.type == "embedding"
    assert small.contexts == (2048,), "shared sizes that a model cannot have are left out"
    assert tiny.contexts == (512,), "and its limit stands in when none is left"


@pytest.mark.parametrize(
    ("defaults", "own", "expected"),
    [
        ("", "", "argument"),
        ("defaults: {engine: shared}\n", "", "shared"),
        ("defaults: {engine: shared}\n", ", engine: own", "own"),
        ("", ", engine: own", "own"),
    ],
)
def test_engine_precedence_is_own_key_defaults_argument(
    defaults: str, own: str, expected: str
) -> None:
    (model,) = read(f"{defaults}models: [{{id: a{own}}}]", engine="argument")
    assert model.engine == expected


def test_models_are_hashable_and_keep_their_order() -> None:
    models = read("models: [{id: b}, {id: a, contexts: [4, 2]}]")
    assert [model.id for model in models] == ["b", "a"]
    assert len(set(models)) == 2
    assert models[1].contexts == (4, 2)


def test_explicit_sizes_are_kept_above_the_declared_maximum() -> None:
    (model,) = read("models: [{id: a, context_limit: 9, contexts: [8, 10]}]")
    assert model.contexts == (8, 10)


def test_yaml_aliases_are_supported() -> None:
    first, second = read("models: [{id: a, contexts: &c [1, 2]}, {id: b, contexts: *c}]")
    assert first.contexts == second.contexts == (1, 2)


def test_byte_order_mark_and_windows_line_ends_are_accepted() -> None:
    assert read(b"\xef\xbb\xbf" + FULL.replace("\n", "\r\n").encode()) == read(FULL)


@pytest.mark.parametrize("id_", ["smile-😀", "family-👩\u200d👧", "naïve", "日本語", "ไทย"])
def test_an_id_in_any_script_is_accepted(id_: str) -> None:
    assert [model.id for model in read(f"models: [{{id: {id_}}}]")] == [id_]


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(FULL, encoding="utf-8")
    assert read_manifest(path) == read(FULL)


def test_the_manifest_of_this_project_is_valid() -> None:
    (model,) = read_manifest(Path(__file__).parents[2] / "models.yaml")
    assert model.id == "smollm2-135m-instruct"
    assert model.engine == "llamacpp"
    assert model.contexts == (2048, 4096, 8192)


identifiers = st.text(st.sampled_from("ab-1 2/@:[]é🚀'\"#{}!&*"), min_size=1).filter(str.strip)


@given(st.dictionaries(identifiers, st.sets(st.integers(1, 2**31 - 1), min_size=1), min_size=1))
def test_case_ids_are_unique(models: dict[str, set[int]]) -> None:
    text = json.dumps(
        {"models": [{"id": key, "contexts": sorted(sizes)} for key, sizes in models.items()]},
        ensure_ascii=False,
    )
    cases = [
        Case(model=model, context_length=size).id
        for model in read(text)
        for size in model.contexts or ()
    ]
    assert len(cases) == sum(map(len, models.values())) == len(set(cases))


TOKENS = [
    *"[]{}:-,*&!|>'\"#%@`?\t\n\r \\~<=.0",
    *("\n  ", "\n  - ", "id", "models:", "contexts", "null", "1e3", "0x1F", "-1", "99999999999"),
    *("*c", "&c ", "<<", "!!int ", "!!python/name:os ", "---\n", "...\n", "\x00", "\ufeff", "\x85"),
    *("\ud7ff", "\u2028", "🚀", '"\\x07"', '"\\U0010FFFF"', "? ", "!<x> ", "%YAML 1.9\n"),
]


@settings(max_examples=100, deadline=None)
@given(st.integers(0))
def test_any_content_gives_models_or_one_error(seed: int) -> None:
    """Apply a hundred mutations in each example."""
    rng = random.Random(seed)
    for _ in range(100):
        text = list(FULL)
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(text))
            text[start : start + rng.choice((0, 0, 1, 2, 30))] = rng.choice(TOKENS)
        data = bytearray("".join(text).encode())
        if rng.random() < 0.2:
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            models = read(bytes(data))
        except ManifestError as error:
            said = str(error)
        else:
            said = "models.yaml:"
            assert models
            assert len({model.id for model in models}) == len(models)
        assert said.startswith("models.yaml:")
        assert "\n" not in said
