"""The engine `lmstudio` with servers of several versions: settings, slots, variants, devices."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_lmstrix.core.types import LoadSettings, Message, Model
from pytest_lmstrix.engines.lmstudio.settings import AS_ASKED, in_force, load_fields
from tests.engines.lmstudio.studio import MODEL, Watched
from tests.standin.lmstudio import Fault, Reasons, ServerError, SharesContext, StandInModel

VERSIONS = ("0.3.30", "0.4.12", "0.4.24")
Q8 = Model(id="tiny", engine="lmstudio", load=LoadSettings(kv_cache_type="q8_0"))
MLX = StandInModel(key="tiny", format="safetensors")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_load_asks_for_one_slot_and_no_fitting(studio: Any, version: str) -> None:
    own = studio(version=version)
    instance = own.load(8192)
    assert own.server.loads()[0].config == {"llm.load.contextLength": 8192} | AS_ASKED
    assert (instance.context_length, instance.usable_context_length) == (8192, 8192)
    assert instance.notes == ()
    instance.unload()


def test_an_mlx_model_gets_mlx_settings_and_never_those_of_llama_cpp(studio: Any) -> None:
    own = studio(MLX, version="0.4.24")
    instance = own.engine.load(Q8, 4096, Watched())
    config = own.server.loads()[0].config
    cache = config["llm.load.mlx.kvCacheQuantization"]
    assert cache == {"enabled": True, "bits": 8, "groupSize": 64, "quantizedStart": 0}
    assert [key for key in config if key.startswith("llm.load.llama.")] == [
        "llm.load.llama.autoFit"
    ]
    assert (instance.ignored_settings, instance.notes) == ((), ())
    instance.unload()


@pytest.mark.parametrize(
    ("version", "settings", "ignored"),
    [
        ("0.3.30", LoadSettings(kv_cache_type="q8_0"), "kv_cache_type"),
        ("0.4.24", LoadSettings(kv_cache_type="q5_1"), "kv_cache_type"),
        (
            "0.4.24",
            LoadSettings(flash_attention=True, batch_size=256),
            "flash_attention, batch_size",
        ),
    ],
    ids=["too old", "no such type", "llama only"],
)
def test_a_setting_that_mlx_does_not_take_is_noted(
    studio: Any, version: str, settings: LoadSettings, ignored: str
) -> None:
    own = studio(MLX, version=version)
    instance = own.engine.load(Model(id="tiny", engine="lmstudio", load=settings), 4096, Watched())
    assert ", ".join(instance.ignored_settings) == ignored
    assert instance.notes == (f"settings: LM Studio did not apply {ignored}",)
    instance.unload()


def test_settings_that_are_in_force_need_no_note(studio: Any) -> None:
    own = studio(version="0.4.24")
    load = LoadSettings(kv_cache_type="q8_0", flash_attention=True, gpu_offload=1.0, batch_size=256)
    instance = own.engine.load(Model(id="tiny", engine="lmstudio", load=load), 4096, Watched())
    assert instance.ignored_settings == ()
    instance.unload()


def test_a_server_that_reports_no_settings_is_believed(studio: Any) -> None:
    fault = Fault(where="getLoadConfig", kind="error", error=ServerError(title="Not implemented."))
    own = studio(faults=(fault,))
    instance = own.engine.load(Q8, 4096, Watched())
    assert (instance.ignored_settings, instance.usable_context_length) == ((), 4096)
    instance.unload()


def test_slots_that_share_the_context_are_noted(studio: Any) -> None:
    own = studio(StandInModel(key="tiny", behaviours=(SharesContext(slots=4),)), version="0.4.24")
    instance = own.load(32_768)
    assert (instance.context_length, instance.usable_context_length) == (32_768, 8192)
    (note,) = instance.notes
    assert note == "slots: a request gets 8,192 of the 32,768 tokens granted (one of 4 slots)"
    instance.unload()


def test_every_variant_is_listed_apart_the_selected_one_too(studio: Any) -> None:
    small = StandInModel(key="tiny@q4_k_m", size_bytes=4, quantization="Q4_K_M")
    large = StandInModel(key="tiny@q8_0", size_bytes=8, quantization="Q8_0")
    own = studio(StandInModel(key="tiny", size_bytes=4, variants=(small, large)), version="0.4.24")
    listed = {facts.id: facts for facts in own.engine.models()}
    assert list(listed) == ["tiny", "tiny@q4_k_m", "tiny@q8_0"]
    assert listed["tiny@q4_k_m"].quantization == "Q4_K_M"
    assert (listed["tiny@q8_0"].size_bytes, listed["tiny@q8_0"].quantization) == (8, "Q8_0")
    selected = own.engine.facts(Model(id="tiny@q4_k_m", engine="lmstudio"))
    assert selected.fingerprint == listed["tiny"].fingerprint == "size:4 path:tiny@q4_k_m"
    assert listed["tiny@q8_0"].fingerprint == "size:8 path:tiny@q8_0"
    instance = own.engine.load(Model(id="tiny@q8_0", engine="lmstudio"), 4096, Watched())
    assert own.server.loads()[0].model_key == "tiny@q8_0"
    instance.unload()


def test_variants_without_details_are_listed_all_the_same(studio: Any) -> None:
    small, large = StandInModel(key="tiny@q4"), StandInModel(key="tiny@q8")
    unknown = ServerError(title="Unknown.")
    fault = Fault(where="listDownloadedModelVariants", kind="error", times=2, error=unknown)
    own = studio(StandInModel(key="tiny", variants=(small, large)), faults=(fault,))
    base, selected, variant = own.engine.models()
    assert (selected.id, selected.fingerprint) == ("tiny@q4", base.fingerprint)
    assert (variant.id, variant.size_bytes, variant.fingerprint) == (
        "tiny@q8",
        None,
        "path:tiny@q8",
    )


def test_of_a_model_on_several_devices_the_one_here_counts(studio: Any) -> None:
    linked = StandInModel(key="tiny", device="attic", size_bytes=9, max_context_length=262_144)
    own = studio(linked, StandInModel(key="tiny", size_bytes=7, max_context_length=65_536))
    (facts,) = own.engine.models()
    assert (facts.context_limit, facts.size_bytes) == (65_536, 7)
    assert "device" not in (facts.fingerprint or "")
    instance = own.load()
    assert own.server.loads()[0].device == "this"
    assert instance.notes == ()
    instance.unload()


def test_a_model_on_a_linked_device_names_it(studio: Any) -> None:
    own = studio(StandInModel(key="far", device="attic", size_bytes=9), StandInModel(key="tiny"))
    far = Model(id="far", engine="lmstudio")
    facts = own.engine.facts(far)
    assert facts.fingerprint == "size:9 path:publisher/far/far.gguf device:attic"
    instance = own.engine.load(far, 4096, Watched())
    assert own.server.loads()[0].device == "attic"
    assert instance.notes == ("linked device: ran on attic, not on this machine",)
    instance.unload()
    assert own.ours() == []


@pytest.mark.parametrize(
    "entry",
    [{"type": "drafter"}, {"type": "tts", "maxContextLength": None}],
    ids=lambda entry: str(entry["type"]),
)
def test_models_that_answer_no_prompts_are_not_listed(
    studio: Any, entry: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    own = studio(StandInModel(key="odd", listing=entry), StandInModel(key="tiny"))
    assert [facts.id for facts in own.engine.models()] == ["tiny"]
    assert caplog.text == ""


def test_a_format_that_the_sdk_does_not_know_is_loaded_and_asked(studio: Any) -> None:
    newer = {"format": "pte", "maxContextLength": None, "indexedModelIdentifier": "a/b"}
    own = studio(StandInModel(key="tiny", listing=newer))
    (facts,) = own.engine.models()
    assert (facts.id, facts.context_limit) == ("tiny", None)
    instance = own.load()
    assert instance.complete("1 + 1 = 2\n2 + 3 =", max_tokens=3).text.strip() == "5"
    instance.unload()


@pytest.mark.parametrize(
    ("settings", "reported"),
    [
        (LoadSettings(kv_cache_type="f16"), {"checked": False, "value": "q8_0"}),
        (LoadSettings(kv_cache_type="f16"), {"checked": True, "value": "f16"}),
        (LoadSettings(gpu_offload=1.0), "max"),
        (LoadSettings(gpu_offload=1.0), 1),
        (LoadSettings(gpu_offload=0.0), "off"),
    ],
)
def test_a_setting_may_be_reported_in_another_form(settings: LoadSettings, reported: Any) -> None:
    asked = load_fields(Model(id="tiny", engine="lmstudio", load=settings), 4096)
    keys = [key for given in asked.by_setting.values() for key in given]
    fields = [{"key": key, "value": reported} for key in keys]
    assert in_force(asked, {"fields": fields}).ignored_settings == ()


@pytest.mark.parametrize("reported", ["q4_0", {"checked": False}, None, {"checked": True}])
def test_a_setting_with_another_value_is_not_in_force(reported: Any) -> None:
    asked = load_fields(Q8, 4096)
    keys = [key for given in asked.by_setting.values() for key in given]
    fields = [{"key": key, "value": reported} for key in keys]
    assert in_force(asked, {"fields": fields}).ignored_settings == ("kv_cache_type",)


def test_a_load_needs_no_settings_of_the_models_own() -> None:
    fields = load_fields(MODEL, 4096)
    assert (dict(fields.by_setting), fields.unsupported) == ({}, ())


@pytest.mark.parametrize(
    ("version", "can_refrain", "thoughts"),
    [("0.3.30", True, 100), ("0.4.24", True, 0), ("0.4.24", False, 48)],
    ids=["too old", "asked not to", "cut short"],
)
def test_a_thinking_model_is_asked_to_answer_at_once(
    studio: Any, version: str, can_refrain: bool, thoughts: int
) -> None:
    thinker = StandInModel(key="tiny", behaviours=(Reasons(tokens=100, can_refrain=can_refrain),))
    instance = studio(thinker, version=version).load()
    messages = [Message(role="user", content="2 + 3 =")]
    reply = instance.chat(messages, max_tokens=64)
    assert reply.reasoning.count("hmm") == min(thoughts, 63)
    assert (reply.text.strip() == "5") is (version != "0.3.30")
    instance.unload()


def test_raw_completions_are_asked_as_before(studio: Any) -> None:
    own = studio(version="0.4.24")
    instance = own.load()
    instance.complete("2 + 3 =", max_tokens=4)
    config = own.server.predictions()[0].config
    assert not any(key.startswith("llm.prediction.reasoning") for key in config)
    instance.unload()
