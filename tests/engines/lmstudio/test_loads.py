"""Loads in LM Studio: what is sent, what is read back, and what a failed load leaves."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LoadSettings, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.lmstudio.engine import LmStudioEngine
from pytest_lmstrix.engines.lmstudio.settings import AS_ASKED
from tests.engines.lmstudio.studio import MODEL, TINY, Watched
from tests.standin.lmstudio import (
    Crashes,
    GrantsAtMost,
    Guardrail,
    MissingFromDisk,
    StandInModel,
)


def test_load_requests_the_context_and_reads_back_the_granted_one(studio: Any) -> None:
    own = studio(StandInModel(key="tiny", behaviours=(GrantsAtMost(tokens=2048),)))
    progress = Watched()
    instance = own.load(30_000, progress)
    (load,) = own.server.loads()
    assert (load.context_length, instance.context_length) == (30_000, 2048)
    assert progress.fractions[-1] == 1.0
    assert sorted(progress.fractions) == progress.fractions
    assert own.ours() == [instance.identifier]
    instance.unload()


def test_an_instance_has_a_ttl_renewed_by_each_reply(studio: Any) -> None:
    own = studio(reply_timeout=1000.0)
    own.load().unload()
    assert own.server.loads()[0].ttl_ms == 2_000_000
    assert LmStudioEngine("host:1", reply_timeout=1.0).ttl_seconds == 600


def test_load_settings_reach_the_server(studio: Any) -> None:
    own = studio()
    load = LoadSettings(kv_cache_type="q8_0", flash_attention=True, gpu_offload=0.5, batch_size=256)
    model = Model(id="tiny", engine="lmstudio", load=load)
    own.engine.load(model, 4096, Watched()).unload()
    config = own.server.loads()[0].config
    assert config["llm.load.llama.kCacheQuantizationType"] == {"checked": True, "value": "q8_0"}
    assert config["llm.load.llama.vCacheQuantizationType"] == {"checked": True, "value": "q8_0"}
    assert config["llm.load.llama.flashAttention"] is True
    assert config["llm.load.llama.acceleration.offloadRatio"] == 0.5
    assert config["llm.load.llama.evalBatchSize"] == 256


def test_only_requested_settings_are_sent(studio: Any) -> None:
    own = studio()
    own.load(4096).unload()
    assert own.server.loads()[0].config == {"llm.load.contextLength": 4096, **AS_ASKED}


@pytest.mark.parametrize(
    "settings",
    [LoadSettings(threads=4), LoadSettings(gpu_layers=0), LoadSettings(kv_cache_type="bf16")],
    ids=["threads", "gpu_layers", "bf16"],
)
def test_an_unsupported_setting_is_refused(studio: Any, settings: LoadSettings) -> None:
    own = studio()
    with pytest.raises(Failure, match="'tiny': LM Studio does not support load setting"):
        own.engine.load(Model(id="tiny", engine="lmstudio", load=settings), 4096, Watched())
    assert own.server.loads() == []


def test_models_are_listed_with_their_facts(studio: Any) -> None:
    own = studio(
        StandInModel(
            key="pub/seer",
            size_bytes=7,
            path="pub/seer.gguf",
            max_context_length=8192,
            vision=True,
            trained_for_tool_use=True,
            quantization="Q8_0",
        ),
        TINY,
        StandInModel(key="embed", type="embedding", architecture=None, quantization=None),
    )
    seer, tiny, embed = own.engine.models()
    assert (seer.id, seer.type, seer.context_limit, seer.size_bytes) == (
        "pub/seer",
        "llm",
        8192,
        7,
    )
    assert seer.capabilities == ("vision", "tools")
    assert (seer.architecture, seer.quantization) == ("llama", "Q8_0")
    assert seer.fingerprint == "size:7 path:pub/seer.gguf"
    assert tiny.capabilities == ()
    assert (embed.type, embed.quantization) == ("embedding", None)
    assert own.engine.facts(MODEL) == tiny
    assert own.engine.facts(Model(id="absent", engine="lmstudio")) is None
    assert len(own.server.named("listDownloadedModels")) == 1


@pytest.mark.parametrize(
    "broken",
    [{"type": "hologram"}, {"sizeBytes": "much"}, {"modelKey": None}],
    ids=["type", "size", "key"],
)
def test_an_invalid_listing_entry_is_skipped(
    studio: Any, broken: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    own = studio(StandInModel(key="odd", listing=broken), TINY)
    assert [facts.id for facts in own.engine.models()] == ["tiny"]
    assert "left out" in caplog.text


def test_version(studio: Any) -> None:
    assert studio().engine.version == "0.3.30+1"


@pytest.mark.parametrize(
    ("behaviour", "verdict"),
    [
        (MissingFromDisk(), Verdict.MODEL_NOT_FOUND),
        (Guardrail(above=100), Verdict.GUARDRAIL_REFUSED),
        (Crashes(at="load"), Verdict.CRASHED),
    ],
    ids=["missing", "guardrail", "crash"],
)
def test_a_failed_load_is_a_failure(studio: Any, behaviour: Any, verdict: Verdict) -> None:
    own = studio(StandInModel(key="tiny", behaviours=(behaviour,)))
    with pytest.raises(Failure) as failed:
        own.load()
    assert (failed.value.verdict, failed.value.phase) == (verdict, "load")
    assert "\n" not in failed.value.text


def test_error_codes_are_kept(studio: Any) -> None:
    own = studio()
    with pytest.raises(Failure) as failed:
        own.engine.load(Model(id="absent", engine="lmstudio"), 4096, Watched())
    assert failed.value.text == "Model not found: absent"
    assert failed.value.code == "generic.pathNotFound"
