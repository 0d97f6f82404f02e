"""What a file is, known before it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.weights.preflight import preflight
from tests.standin.gguf_bytes import (
    TENSOR,
    TensorInfo,
    a_model,
    gguf_bytes,
    write_model,
    write_split,
)


def put(folder: Path, data: bytes) -> Path:
    path = folder / "m.gguf"
    path.write_bytes(data)
    return path


def test_a_sound_model_is_described(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    size = path.stat().st_size
    found = preflight(path)
    assert (found.verdict, found.reason) == (None, "")
    assert (found.kind, found.architecture, found.context_length) == ("model", "llama", 4096)
    assert (found.quantization, found.size_bytes, found.parts) == ("Q4_K_M", size, (path,))
    facts = found.require().facts()
    assert (facts.id, facts.type, facts.architecture) == ("tiny", "llm", "llama")
    assert (facts.context_limit, facts.quantization, facts.size_bytes) == (4096, "Q4_K_M", size)
    assert facts.path == facts.source == str(path)
    assert facts.fingerprint == f"size:{size} path:{path}"
    assert found.facts(name="x", sha256="0" * 64).fingerprint == f"sha256:{'0' * 64}"
    assert found.facts(name="x").id == "x"


@pytest.mark.parametrize(
    ("architecture", "metadata", "kind"),
    [
        ("llama", {}, "llm"),
        ("llama", {"llama__pooling_type": 1}, "embedding"),
        ("nomic-bert", {}, "embedding"),
        ("bert", {}, "embedding"),
        ("jina-bert-v2", {}, "embedding"),
        ("gemma-embedding", {}, "embedding"),
        ("gemma3", {}, "llm"),
        ("gpt-oss", {"general__type": "model"}, "llm"),
    ],
)
def test_embedding_models_are_distinguished(
    tmp_path: Path, architecture: str, metadata: dict[str, object], kind: str
) -> None:
    found = preflight(write_model(tmp_path / "m.gguf", architecture, **metadata))
    assert found.require().facts().type == kind


@pytest.mark.parametrize(
    ("architecture", "metadata", "kind", "words"),
    [
        ("clip", {}, "projector", "a projector (mmproj)"),
        ("llama", {"general__type": "mmproj"}, "projector", "a projector (mmproj)"),
        ("qwen2", {"general__type": "adapter"}, "adapter", "an adapter (LoRA) for qwen2"),
        (
            "llama",
            {"adapter__type": "lora", "general__base_model__0__name": "Llama 3"},
            "adapter",
            "an adapter (LoRA) for Llama 3",
        ),
        ("llama", {"general__type": "imatrix"}, "importance matrix", "an importance matrix"),
        ("controlvector", {}, "control vector", "a control vector"),
        ("t5", {}, "encoder-decoder", "an encoder-decoder model (t5)"),
        ("flux", {}, "image model", "an image or video model (flux)"),
        ("", {}, "other", "names no architecture"),
    ],
)
def test_what_is_not_a_language_model_is_unsupported_by_name(
    tmp_path: Path, architecture: str, metadata: dict[str, object], kind: str, words: str
) -> None:
    found = preflight(write_model(tmp_path / "m.gguf", architecture, **metadata))
    assert (found.verdict, found.kind) == (Verdict.UNSUPPORTED, kind)
    assert words in found.reason
    with pytest.raises(Failure, match=r"unsupported: m\.gguf: ") as raised:
        found.require()
    assert (raised.value.verdict, raised.value.phase) == (Verdict.UNSUPPORTED, "load")


def test_a_vocabulary_is_unsupported(tmp_path: Path) -> None:
    found = preflight(put(tmp_path, gguf_bytes(a_model(), [])))
    assert (found.verdict, found.kind) == (Verdict.UNSUPPORTED, "vocabulary")


@pytest.mark.parametrize(
    ("kind", "name"),
    [(4, "Q4_2"), (5, "Q4_3"), (31, "Q4_0_4_4"), (33, "Q4_0_8_8"), (36, "IQ4_NL_4_4"),
     (38, "IQ4_NL_8_8")],
)  # fmt: skip
def test_tensors_that_llama_cpp_does_not_read_any_more(
    tmp_path: Path, kind: int, name: str
) -> None:
    found = preflight(put(tmp_path, gguf_bytes(a_model(), [TENSOR._replace(type=kind)])))
    assert found.verdict is Verdict.UNSUPPORTED
    assert found.reason == f"quantized as {name}, which llama.cpp does not read any more"


def test_a_tensor_type_newer_than_the_list_is_left_to_the_engine(tmp_path: Path) -> None:
    newer = gguf_bytes(a_model(), [TENSOR._replace(type=99)])
    assert preflight(put(tmp_path, newer)).verdict is None


def test_the_other_byte_order_is_unsupported(tmp_path: Path) -> None:
    found = preflight(put(tmp_path, gguf_bytes(a_model(), order=">")))
    assert (found.verdict, found.reason) == (
        Verdict.UNSUPPORTED,
        "made for big-endian machines",
    )


def test_a_file_cut_anywhere_is_corrupted(tmp_path: Path) -> None:
    whole = gguf_bytes(a_model(), [TENSOR, TensorInfo("output.weight", (32, 4), 2, 64)],
                       data=bytes(64 + 72))  # fmt: skip
    assert preflight(put(tmp_path, whole)).verdict is None
    for size in range(4, len(whole), 7):
        found = preflight(put(tmp_path, whole[:size]))
        assert found.verdict is Verdict.CORRUPTED
        assert found.reason.startswith(("cut short: ", "damaged: the file ends within its header"))
    found = preflight(put(tmp_path, whole[:-1]))
    assert found.reason == f"cut short: 1 of its {len(whole)} bytes are missing"
    assert preflight(put(tmp_path, whole + bytes(8))).verdict is None


@pytest.mark.parametrize(
    ("declared", "read"),
    [(1, 1), (10_485_760, 10_485_760), (2**31 - 1, 2**31 - 1), (None, None)],
)
def test_a_valid_context_length_is_read(
    tmp_path: Path, declared: int | None, read: int | None
) -> None:
    found = preflight(write_model(tmp_path / "m.gguf", llama__context_length=declared))
    assert (found.verdict, found.context_length) == (None, read)


@pytest.mark.parametrize("declared", [0, -1, 2**31, 2**63, "4096", 4096.0, True])
def test_an_invalid_context_length_is_corrupted(tmp_path: Path, declared: object) -> None:
    found = preflight(write_model(tmp_path / "m.gguf", llama__context_length=declared))
    assert found.verdict is Verdict.CORRUPTED
    assert found.reason == (
        f"llama.context_length is {declared!r}, not a whole number from 1 to 2,147,483,647"
    )


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
HTML = b"\n<!DOCTYPE html><html><head><title>Sign in - Example</title></head></html>"
SAFETENSORS = (60).to_bytes(8, "little") + b'{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
CORRUPTED, UNSUPPORTED = Verdict.CORRUPTED, Verdict.UNSUPPORTED


@pytest.mark.parametrize(
    ("data", "verdict", "words"),
    [
        (b"", CORRUPTED, "an empty file"),
        (b"GG", CORRUPTED, "only the first 2 bytes of a GGUF file"),
        (b"GGUF", CORRUPTED, "damaged: the file ends within its header"),
        (bytes(5000), CORRUPTED, "a file that begins with zeros, such as a download not finished"),
        (LFS, CORRUPTED, "a pointer of Git LFS, not the file itself; `git lfs pull` downloads it"),
        (HTML, CORRUPTED, "an HTML page (Sign in - Example), not a model"),
        (b"<HTML>" + b"x" * 9000, CORRUPTED, "an HTML page, not a model"),
        (b"<?xml version='1.0'?><Error/>", CORRUPTED,
         "an XML text, not a model: <?xml version='1.0'?><Error/>"),
        (b'\xef\xbb\xbf{"error": "Repository\n not found"}', CORRUPTED,
         'a JSON text, not a model: {"error": "Repository not found"}'),
        (b"Not found", CORRUPTED, "a text, not a model: Not found"),
        ("é".encode() * 4000, CORRUPTED, f"a text, not a model: {'é' * 80}"),
        (SAFETENSORS, UNSUPPORTED, "a safetensors file, not GGUF"),
        (b"PK\x03\x04\x00", UNSUPPORTED, "a zip archive or a PyTorch file, not GGUF"),
        (b"\x80\x02}", UNSUPPORTED, "a Python pickle (PyTorch), not GGUF"),
        (b"tjgg\x01\x00", UNSUPPORTED,
         "a GGML file of before GGUF, which llama.cpp does not read any more"),
        (b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf7", CORRUPTED,
         r"not a GGUF file; it begins with b'\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8'"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_gguf_is_named(
    tmp_path: Path, data: bytes, verdict: Verdict, words: str
) -> None:
    found = preflight(put(tmp_path, data))
    assert (found.verdict, found.reason) == (verdict, words)
    assert found.size_bytes == len(data)


def test_a_missing_file_is_model_not_found(tmp_path: Path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(tmp_path / "nowhere")
    for path, words in (
        (tmp_path / "m.gguf", "no such file"),
        (tmp_path, "a folder, not a file"),
        (link, f"a link that leads nowhere: {tmp_path / 'nowhere'} does not exist"),
    ):
        found = preflight(path)
        assert (found.verdict, found.reason) == (Verdict.MODEL_NOT_FOUND, words)


def test_a_whole_split_model_is_described(tmp_path: Path) -> None:
    files = write_split(tmp_path, "big", 3)
    found = preflight(files[0])
    assert (found.verdict, found.parts) == (None, tuple(files))
    assert found.size_bytes == sum(path.stat().st_size for path in files)
    assert found.facts().id == "big"


def rename_first(files: list[Path]) -> Path:
    return files[0].rename(files[0].with_name("renamed.gguf"))


def rename_second(files: list[Path]) -> Path:
    return files[1].rename(files[1].with_name("renamed.gguf"))


def remove_second(files: list[Path]) -> Path:
    files[1].unlink()
    return files[0]


def remove_others(files: list[Path]) -> Path:
    files[2].unlink()
    return remove_second(files)


def remove_first(files: list[Path]) -> Path:
    files[0].unlink()
    return files[2]


def cut_last(files: list[Path]) -> Path:
    files[2].write_bytes(files[2].read_bytes()[:-1])
    return files[0]


def spoil_last(files: list[Path]) -> Path:
    files[2].write_bytes(HTML)
    return files[0]


def exchange(files: list[Path]) -> Path:
    files[2].write_bytes(files[1].read_bytes())
    return files[0]


@pytest.mark.parametrize(
    ("spoil", "verdict", "words"),
    [
        (lambda files: files[1], UNSUPPORTED,
         "file 2 of the 3 of a split model; name the first of them, big-00001-of-00003.gguf"),
        (remove_first, UNSUPPORTED,
         "file 3 of the 3 of a split model; name the first of them, big-00001-of-00003.gguf,"
         " which is missing"),
        (rename_second, UNSUPPORTED,
         "file 2 of the 3 of a split model; name the first of them"),
        (rename_first, Verdict.MODEL_NOT_FOUND,
         "the first of 3 files, whose name must end in -00001-of-00003 for the others to be found"),
        (remove_second, Verdict.MODEL_NOT_FOUND,
         "the first of 3 files, of which big-00002-of-00003.gguf is missing"),
        (remove_others, Verdict.MODEL_NOT_FOUND,
         "the first of 3 files, of which big-00002-of-00003.gguf and 1 more are missing"),
        (cut_last, CORRUPTED, "its part big-00003-of-00003.gguf is cut short: 1 of its *"),
        (spoil_last, CORRUPTED, "its part big-00003-of-00003.gguf is an HTML page *"),
        (exchange, CORRUPTED, "its part big-00003-of-00003.gguf is not file 3 of 3"),
    ],
)  # fmt: skip
def test_a_split_model_is_judged_by_its_headers(
    tmp_path: Path, spoil: Callable[[list[Path]], Path], verdict: Verdict, words: str
) -> None:
    found = preflight(spoil(write_split(tmp_path, "big", 3)))
    assert found.verdict is verdict
    if words.endswith("*"):
        assert found.reason.startswith(words[:-1])
    else:
        assert found.reason == words


def test_a_first_file_without_tensors_is_not_a_vocabulary(tmp_path: Path) -> None:
    first, *_ = write_split(tmp_path, "big", 2)
    values = a_model(split__no=0, split__count=2, split__tensors__count=2)
    first.write_bytes(gguf_bytes(values, []))
    assert preflight(first).verdict is None


def test_a_file_name_alone_does_not_make_a_split_model(tmp_path: Path) -> None:
    assert preflight(write_model(tmp_path / "x-00001-of-00003.gguf")).verdict is None
