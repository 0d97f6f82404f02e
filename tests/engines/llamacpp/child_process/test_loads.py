"""Granted contexts, facts from the file, progress of a load, and load settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LoadSettings, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine
from tests.engines.llamacpp.child_process.loads import ModelLoader, Recorder
from tests.standin import weights

pytest.importorskip("xllamacpp")


@pytest.mark.parametrize(("asked", "granted"), [(512, 512), (600, 768), (16_384, 8_192)])
def test_the_granted_context_is_read_back(loader: ModelLoader, asked: int, granted: int) -> None:
    instance = loader.load(asked)
    assert instance.context_length == granted
    instance.unload()


def test_facts_are_read_from_the_file_header() -> None:
    path = str(weights.smollm2())
    facts = LlamaCppEngine().facts(Model(id="tiny", engine="llamacpp", source=path))
    assert facts is not None
    assert (facts.id, facts.type, facts.architecture) == ("tiny", "llm", "llama")
    assert (facts.context_limit, facts.size_bytes, facts.quantization) == (8192, 98362432, "Q4_1")
    assert facts.fingerprint == f"size:98362432 path:{path}"


def test_remote_weights_with_declared_facts_are_not_downloaded() -> None:
    fetched: list[Model] = []

    def fetch(model: Model) -> Path:
        fetched.append(model)
        return weights.smollm2()

    engine = LlamaCppEngine(weights=fetch)
    model = Model(id="far", engine="llamacpp", source="https://example.org/a.gguf")
    assert engine.facts(replace(model, context_limit=8192)) is None
    assert fetched == []
    facts = engine.facts(model)
    assert facts is not None
    assert facts.context_limit == 8192


def test_a_model_without_a_source_is_found_by_file_name(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").symlink_to(weights.smollm2())
    engine = LlamaCppEngine(folders=[tmp_path])
    assert [facts.id for facts in engine.models()] == ["tiny"]
    tiny = Model(id="tiny", engine="llamacpp", load=LoadSettings(threads=1))
    engine.load(tiny, 512, Recorder()).unload()
    with pytest.raises(Failure) as failure:
        engine.load(Model(id="missing", engine="llamacpp"), 512, Recorder())
    assert failure.value.verdict is Verdict.MODEL_NOT_FOUND


def test_load_progress_stays_below_one_until_loaded(loader: ModelLoader) -> None:
    progress = Recorder()
    loader.load(512, progress).unload()
    assert progress.loads[-1] == 1.0
    assert all(0 <= fraction < 1 for fraction in progress.loads[:-1])


def test_load_settings_reach_llama_cpp(loader: ModelLoader) -> None:
    sizes = {}
    for kind in ("f32", "q8_0"):
        load = LoadSettings(threads=1, kv_cache_type=kind, flash_attention=True)
        instance = loader.load(8192, load=load)
        sizes[kind] = instance.peak_memory_bytes or 0
        instance.unload()
    # 2 * 30 layers * 8,192 tokens * 3 heads * 64 values: 4 bytes each, and 34/32.
    assert sizes["f32"] - sizes["q8_0"] > 200e6


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        pytest.param(LoadSettings(gpu_offload=0.5), "gpu_layers", id="setting of another engine"),
        pytest.param(
            LoadSettings(kv_cache_type="q8_0", flash_attention=False), "flash_attn", id="at odds"
        ),
    ],
)
def test_an_unsupported_setting_is_an_error(
    loader: ModelLoader, load: LoadSettings, reason: str
) -> None:
    with pytest.raises(Failure, match=reason) as failure:
        loader.load(load=load)
    assert failure.value.verdict is Verdict.ENGINE_ERROR
