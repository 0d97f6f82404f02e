"""GGUF files: parsing of headers, and discovery of files."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("gguf")

import gguf

from pytest_lmstrix.weights.gguf import find, model_facts, read_header, usual_places


def write_model(
    path: Path,
    architecture: str = "llama",
    *,
    context_length: int | None = 4096,
    kind: str | None = None,
    pooled: bool = False,
    tensors: bool = True,
) -> Path:
    """A GGUF file with one small tensor and a vocabulary."""
    import numpy

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    if kind is not None:
        writer.add_type(kind)
    if pooled:
        writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_list(["a", "é", "b" * 300])
    writer.add_token_scores([0.5, 1.5, 2.5])
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    if context_length is not None:
        writer.add_context_length(context_length)
    if tensors:
        writer.add_tensor("token_embd.weight", numpy.zeros((4, 4), dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_model_facts_are_read_from_the_header(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    facts = model_facts(path)
    size = path.stat().st_size
    assert (facts.id, facts.type, facts.architecture) == ("tiny", "llm", "llama")
    assert (facts.context_limit, facts.quantization, facts.size_bytes) == (4096, "Q4_K_M", size)
    assert facts.path == facts.source == str(path)
    assert facts.fingerprint == f"size:{size} path:{path}"
    assert model_facts(path, name="x", sha256="0" * 64).fingerprint == f"sha256:{'0' * 64}"


def test_the_reader_agrees_with_the_library(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    header = read_header(path)
    fields = gguf.GGUFReader(path).fields
    scalars = {name: field.contents() for name, field in fields.items() if len(field.types) == 1}
    assert {name: header[name] for name in header if name != "tensor_count"} == {
        name: value for name, value in scalars.items() if not name.startswith("GGUF.")
    }
    assert header["tensor_count"] == 1


@pytest.mark.parametrize(
    ("architecture", "pooled", "kind"),
    [
        ("llama", False, "llm"),
        ("llama", True, "embedding"),
        ("nomic-bert", False, "embedding"),
        ("bert", False, "embedding"),
        ("jina-bert-v2", False, "embedding"),
        ("gemma-embedding", False, "embedding"),
        ("gemma3", False, "llm"),
        ("t5", False, "llm"),
    ],
)
def test_embedding_models_are_detected(
    tmp_path: Path, architecture: str, pooled: bool, kind: str
) -> None:
    assert model_facts(write_model(tmp_path / "m.gguf", architecture, pooled=pooled)).type == kind


def test_missing_header_fields_are_unknown(tmp_path: Path) -> None:
    assert model_facts(write_model(tmp_path / "m.gguf", context_length=None)).context_limit is None


@pytest.mark.parametrize(
    ("architecture", "kind", "tensors"),
    [
        pytest.param("clip", "mmproj", True, id="projector"),
        pytest.param("llama", "adapter", True, id="adapter"),
        pytest.param("llama", None, False, id="vocabulary"),
    ],
)
def test_auxiliary_files_are_not_models(
    tmp_path: Path, architecture: str, kind: str | None, tensors: bool
) -> None:
    path = write_model(tmp_path / "m.gguf", architecture, kind=kind, tensors=tensors)
    with pytest.raises(ValueError, match=r"m\.gguf"):
        model_facts(path)


def test_split_files_are_one_model(tmp_path: Path) -> None:
    first = write_model(tmp_path / "big-00001-of-00003.gguf")
    for number in (2, 3):
        (tmp_path / f"big-0000{number}-of-00003.gguf").write_bytes(b"GGUF" * 100)
    assert find([tmp_path]) == {"big": first}
    assert model_facts(first).id == "big"
    assert model_facts(first).size_bytes == first.stat().st_size + 800
    (tmp_path / "big-00003-of-00003.gguf").unlink()
    with pytest.raises(FileNotFoundError):
        model_facts(first)


def test_a_truncated_header_is_an_error_naming_the_file(tmp_path: Path) -> None:
    whole = write_model(tmp_path / "m.gguf").read_bytes()
    # Tensor names and data follow the last value; only llama.cpp validates them.
    end = whole.index(b"token_embd.weight") - 8
    for size in range(end):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.gguf"):
            read_header(cut)


@settings(deadline=None)  # a busy machine may be slow
@given(
    position=st.integers(4, 400), noise=st.binary(min_size=1, max_size=16), cut=st.integers(0, 400)
)
def test_a_damaged_header_is_parsed_or_refused(
    tmp_path_factory: pytest.TempPathFactory, position: int, noise: bytes, cut: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "sound.gguf"
    if not path.exists():
        write_model(path)
    data = bytearray(path.read_bytes())
    data[position : position + len(noise)] = noise
    damaged = folder / "damaged.gguf"
    damaged.write_bytes(data[: len(data) - cut])
    with contextlib.suppress(ValueError):  # any other exception fails the test
        assert model_facts(damaged).path == str(damaged)


def test_files_are_found_once_and_have_distinct_names(tmp_path: Path) -> None:
    for name in ("a/one.gguf", "b/two.gguf", "c/two.gguf", "x/y/three.gguf", "z/y/three.gguf"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "a" / "one.gguf")
    (tmp_path / "dangling.gguf").symlink_to(tmp_path / "nowhere")
    found = find([tmp_path, tmp_path / "a", tmp_path / "missing"])
    assert set(found) == {"one", "b/two", "c/two", "x/y/three", "z/y/three"}


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    models, disk = tmp_path / "models", tmp_path / "disk"
    for path in (models / "here" / "one.gguf", disk / "two.gguf", disk / "deep" / "THREE.GGUF"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (models / "away").symlink_to(disk)
    (models / "again").symlink_to(models / "here")
    (disk / "deep" / "back").symlink_to(models)
    assert find([models]) == {
        "one": models / "here" / "one.gguf",
        "two": models / "away" / "two.gguf",
        "THREE": models / "away" / "deep" / "THREE.GGUF",
    }


def test_default_folders_follow_the_settings_of_their_applications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path / "llama"))
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'lms'}\n", encoding="utf-8")
    (tmp_path / "lms").mkdir()
    settings = {"downloadsFolder": str(tmp_path / "models")}
    (tmp_path / "lms" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    places = usual_places()
    for place in ("models", "lms/models", "hf/hub", "llama"):
        assert tmp_path / place in places
    (tmp_path / "lms" / "settings.json").write_text("[]", encoding="utf-8")
    assert tmp_path / "models" not in usual_places()
