"""More than a hundred model files, whole and broken, each with its right verdict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pytest_lmstrix.core.verdicts import Verdict
from tests.standin.gguf_bytes import (
    TENSOR,
    TensorInfo,
    a_model,
    gguf_bytes,
    write_model,
    write_split,
)
from tests.standin.tiny_models import ARCHITECTURES, tiny_model, write_tiny_split

GO_TEMPLATE = "{{ if .System }}<|im_start|>{{ .System }}{{ end }}{{ .Prompt }}"
RAISING_TEMPLATE = "{{ raise_exception('out of memory') }}"

NOT_GGUF = {
    "empty": (b"", Verdict.CORRUPTED, "an empty file"),
    "two-bytes": (b"GG", Verdict.CORRUPTED, "only the first 2 bytes of a GGUF file"),
    "zeros": (bytes(10_000), Verdict.CORRUPTED, "begins with zeros"),
    "web-page": (b"<!doctype html><title>Log in</title>", Verdict.CORRUPTED, "an HTML page"),
    "xml": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", Verdict.CORRUPTED, "an XML text"),
    "json": (b'{"error": "Repository not found"}', Verdict.CORRUPTED, "a JSON text"),
    "text": (b"Entry not found", Verdict.CORRUPTED, "a text, not a model: Entry not found"),
    "noise": (bytes(range(255, 127, -1)) * 9, Verdict.CORRUPTED, "not a GGUF file"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n",
        Verdict.CORRUPTED,
        "a pointer of Git LFS",
    ),
    "safetensors": (
        (13).to_bytes(8, "little") + b'{"__meta":{}}',
        Verdict.UNSUPPORTED,
        "a safetensors file",
    ),
    "zip": (b"PK\x03\x04" + bytes(99), Verdict.UNSUPPORTED, "a zip archive or a PyTorch file"),
    "pickle": (b"\x80\x02}q\x00.", Verdict.UNSUPPORTED, "a Python pickle"),
    "gzip": (b"\x1f\x8b\x08" + bytes(99), Verdict.UNSUPPORTED, "a gzip archive"),
    "ggml": (b"tjgg" + bytes(99), Verdict.UNSUPPORTED, "a GGML file of before GGUF"),
}
OTHER_KINDS: dict[str, tuple[str, dict[str, object], str]] = {
    "projector": ("clip", {}, "a projector (mmproj)"),
    "projector-by-type": ("llama", {"general__type": "mmproj"}, "a projector (mmproj)"),
    "adapter": ("qwen2", {"general__type": "adapter"}, "an adapter (LoRA) for qwen2"),
    "control-vector": ("controlvector", {}, "a control vector"),
    "imatrix": ("llama", {"general__type": "imatrix"}, "an importance matrix"),
    "t5": ("t5", {}, "an encoder-decoder model (t5)"),
    "flux": ("flux", {}, "an image or video model (flux)"),
    "sdxl": ("sdxl", {}, "an image or video model (sdxl)"),
    "wan": ("wan", {}, "an image or video model (wan)"),
    "vocoder": ("wavtokenizer-dec", {}, "a speech model (wavtokenizer-dec)"),
    "no-architecture": ("", {}, "names no architecture"),
}
REMOVED = {4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8",
           36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8"}  # fmt: skip
VERSIONS = {
    "big-endian": (3, ">", "made for big-endian machines"),
    "big-endian-v2": (2, ">", "made for big-endian machines"),
    "version-1": (1, "<", "of GGUF version 1"),
    "version-4": (4, "<", "of GGUF version 4"),
}


class ModelFile(NamedTuple):
    """A model file as a manifest names it."""

    id: str
    path: Path
    verdict: Verdict = Verdict.OK
    """Of a run of `fast` and `full`."""
    words: str = ""
    """Part of the reason against it."""
    registered: bool = False
    """Whether a scan registers it."""


def write_whole(folder: Path) -> Iterator[ModelFile]:
    """Models that answer, by architecture, and what must not stop one."""
    for architecture in ARCHITECTURES:
        yield _registered(folder, architecture, tiny_model(architecture))
    variants: dict[str, dict[str, object]] = {
        "scout": {"llama__context_length": 10_485_760},
        "largest": {"llama__context_length": 2**31 - 1},
        "go-template": {"tokenizer__chat_template": GO_TEMPLATE},
        "raising-template": {"tokenizer__chat_template": RAISING_TEMPLATE},
        "typed": {"general__type": "model"},
        "named-as-a-part-00002-of-00003": {},
    }
    for name, metadata in variants.items():
        yield _registered(folder, name, tiny_model(**metadata))
    first, _ = write_tiny_split(folder, "split")
    yield ModelFile("split", first, registered=True)
    yield _registered(folder, "trailing-bytes", tiny_model() + bytes(100))
    yield _registered(folder, "not-a-number", tiny_model(nan=True), Verdict.WRONG_ANSWER)


def write_broken(folder: Path) -> Iterator[ModelFile]:
    """Files that no engine needs to look at."""
    for name, (data, verdict, words) in NOT_GGUF.items():
        yield _left_out(folder, name, data, verdict, words)
    for architecture in ARCHITECTURES:
        yield from _cut(folder, architecture)
    for kind, (architecture, metadata, words) in OTHER_KINDS.items():
        data = gguf_bytes(a_model(architecture, **metadata))
        yield _left_out(folder, kind, data, Verdict.UNSUPPORTED, words)
    yield _left_out(folder, "vocabulary", gguf_bytes(a_model(), []), Verdict.UNSUPPORTED,
                    "a vocabulary without tensors")  # fmt: skip
    for kind, words in REMOVED.items():
        data = gguf_bytes(a_model(), [TENSOR, TensorInfo("output.weight", (32, 4), kind, 64)])
        yield _left_out(folder, f"type-{kind}", data, Verdict.UNSUPPORTED, f"quantized as {words},")
    for name, (version, order, words) in VERSIONS.items():
        data = gguf_bytes(a_model(), version=version, order=order)
        yield _left_out(folder, name, data, Verdict.UNSUPPORTED, words)
    for declared in (0, -1, 2**31, "4096"):
        data = gguf_bytes(a_model(llama__context_length=declared))
        yield _left_out(folder, f"context-{declared}", data, Verdict.CORRUPTED,
                        f"llama.context_length is {declared!r}")  # fmt: skip
    yield from _write_splits(folder)
    link = folder / "dangling.gguf"
    link.symlink_to(folder / "nowhere")
    yield ModelFile("dangling", link, Verdict.MODEL_NOT_FOUND, "a link that leads nowhere")


def _cut(folder: Path, architecture: str) -> Iterator[ModelFile]:
    whole = tiny_model(architecture)
    infos = whole.index(b"output_norm.weight")
    sizes = {
        "cut-by-one-byte": (len(whole) - 1, "cut short: 1 of its"),
        "cut-in-the-data": (len(whole) // 2, "cut short: "),
        "cut-in-the-list": (infos + 30, "the file ends within its header"),
        "cut-in-the-metadata": (infos // 2, "the file ends within its header"),
    }
    for name, (size, words) in sizes.items():
        data = whole[:size]
        yield _left_out(folder, f"{architecture}-{name}", data, Verdict.CORRUPTED, words)


def _write_splits(folder: Path) -> Iterator[ModelFile]:
    _, second, _ = write_split(folder / "second", "lost-second", 3)
    second.unlink()
    first = second.with_name("lost-second-00001-of-00003.gguf")
    yield ModelFile("lost-second", first, Verdict.MODEL_NOT_FOUND,
                    "lost-second-00002-of-00003.gguf is missing")  # fmt: skip
    first, second, _ = write_split(folder / "first", "lost-first", 3)
    first.unlink()
    yield ModelFile("lost-first", second, Verdict.UNSUPPORTED, "lost-first-00001-of-00003.gguf")
    first, _, third = write_split(folder / "cut", "cut-third", 3)
    third.write_bytes(third.read_bytes()[:-1])
    yield ModelFile("cut-third", first, Verdict.CORRUPTED,
                    "its part cut-third-00003-of-00003.gguf is cut short: 1 of its")  # fmt: skip
    for number, (verdict, words) in enumerate((
        (Verdict.MODEL_NOT_FOUND, "the first of 2 files, whose name must end in -00001-of-00002"),
        (Verdict.UNSUPPORTED, "file 2 of the 2 of a split model; name the first of them"),
    )):  # fmt: skip
        name = f"renamed-{number + 1}"
        metadata = {"split__no": number, "split__count": 2, "split__tensors__count": 2}
        yield ModelFile(name, write_model(folder / f"{name}.gguf", **metadata), verdict, words)


def _registered(folder: Path, name: str, data: bytes, verdict: Verdict = Verdict.OK) -> ModelFile:
    path = folder / f"{name}.gguf"
    path.write_bytes(data)
    return ModelFile(name.removesuffix("-00002-of-00003"), path, verdict, registered=True)


def _left_out(folder: Path, name: str, data: bytes, verdict: Verdict, words: str) -> ModelFile:
    path = folder / f"{name}.gguf"
    path.write_bytes(data)
    return ModelFile(name, path, verdict, words)
