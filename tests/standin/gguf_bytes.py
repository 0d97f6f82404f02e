"""GGUF files made byte by byte: what no library would write too."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ALIGNMENT = 32
F32 = 0


_SPLIT_FORMATS = {
    "split.no": (2, "H"), "split.count": (2, "H"), "split.tensors.count": (5, "i"),
}  # fmt: skip
"""The types that llama.cpp insists on."""


class TensorInfo(NamedTuple):
    name: str = "token_embd.weight"
    shape: tuple[int, ...] = (4, 4)
    type: int = F32
    offset: int = 0


TENSOR = TensorInfo()


def text(value: str | bytes, order: str = "<") -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(f"{order}Q", len(data)) + data


def typed(value: object, order: str = "<") -> bytes:
    """A value with its type before it; whole numbers are unsigned, of 32 bits if they can be.

    In a list they are signed, of 32 bits.
    """
    if isinstance(value, bool):
        return struct.pack(f"{order}I?", 7, value)
    if isinstance(value, int):
        kind, form = (4, "I") if 0 <= value < 2**32 else (10, "Q") if value > 0 else (11, "q")
        return struct.pack(f"{order}I{form}", kind, value)
    if isinstance(value, float):
        return struct.pack(f"{order}If", 6, value)
    if isinstance(value, str):
        return struct.pack(f"{order}I", 8) + text(value, order)
    assert isinstance(value, list)
    if all(type(each) is int for each in value):
        form = f"{order}IIQ{len(value)}i"
        return struct.pack(form, 9, 5, len(value), *value)
    elements = [typed(each, order) for each in value]
    kind = elements[0][:4] if elements else struct.pack(f"{order}I", 8)
    body = b"".join(each[4:] for each in elements)
    return struct.pack(f"{order}I", 9) + kind + struct.pack(f"{order}Q", len(elements)) + body


def gguf_bytes(
    metadata: Mapping[str, object],
    tensors: Sequence[TensorInfo] = (TENSOR,),
    *,
    data: bytes = bytes(64),
    version: int = 3,
    order: str = "<",
) -> bytes:
    """A whole file; its `data` begins at the alignment."""
    pack = struct.Struct(f"{order}IQQ").pack
    parts = [b"GGUF", pack(version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts.append(text(key, order))
        if form := _SPLIT_FORMATS.get(key):
            parts.append(struct.pack(f"{order}I{form[1]}", form[0], value))
        else:
            parts.append(typed(value, order))
    for name, shape, kind, offset in tensors:
        form = f"{order}I{len(shape)}QIQ"
        parts.append(text(name, order) + struct.pack(form, len(shape), *shape, kind, offset))
    header = b"".join(parts)
    return header + bytes(-len(header) % ALIGNMENT) + data


def a_model(architecture: str = "llama", **metadata: object) -> dict[str, object]:
    """The metadata of a small model; `__` in a name stands for a dot, `None` takes it out."""
    values: dict[str, object] = {
        "general.architecture": architecture,
        f"{architecture}.context_length": 4096,
        "tokenizer.ggml.tokens": ["a", "é", "b" * 300],
        "general.file_type": 15,
    }
    values |= {name.replace("__", "."): value for name, value in metadata.items()}
    return {name: value for name, value in values.items() if value is not None}


def write_model(path: Path, architecture: str = "llama", **metadata: object) -> Path:
    """A file with the header of a model and one small tensor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf_bytes(a_model(architecture, **metadata)))
    return path


def write_split(folder: Path, name: str, count: int) -> list[Path]:
    """A split model of `count` files."""
    files = []
    for number in range(count):
        split = {"split__no": number, "split__count": count, "split__tensors__count": count}
        path = folder / f"{name}-{number + 1:05}-of-{count:05}.gguf"
        files.append(write_model(path, **split))
        if number:  # the model's metadata is in the first file alone
            values = {key.replace("__", "."): value for key, value in split.items()}
            path.write_bytes(gguf_bytes(values, [TensorInfo(f"blk.{number}.weight")]))
    return files
