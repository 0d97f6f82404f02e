"""Names the type of a file that is not GGUF, by its first bytes."""

from __future__ import annotations

import re
from typing import NamedTuple

SAMPLE_BYTES = 4096
"""Bytes from the start of a file that are enough to name its type."""

_WORDS = 80
"""Characters quoted of a text."""


class FileType(NamedTuple):
    """The type of a file, in words that follow "it is"."""

    words: str
    damaged: bool
    """Whether something else was to be in its place, such as a failed download."""


_GGML = FileType("a GGML file of before GGUF, which llama.cpp does not read any more", False)
_SIGNATURES: tuple[tuple[bytes, FileType], ...] = (
    (b"version https://git-lfs", FileType(
        "a pointer of Git LFS, not the file itself; `git lfs pull` downloads it", True)),
    (b"PK\x03\x04", FileType("a zip archive or a PyTorch file, not GGUF", False)),
    (b"PK\x05\x06", FileType("an empty zip archive, not GGUF", False)),
    (b"\x80\x02", FileType("a Python pickle (PyTorch), not GGUF", False)),
    (b"\x80\x04", FileType("a Python pickle (PyTorch), not GGUF", False)),
    (b"\x1f\x8b", FileType("a gzip archive: unpack it", False)),
    (b"\x28\xb5\x2f\xfd", FileType("a zstd archive: unpack it", False)),
    (b"\xfd7zXZ\x00", FileType("an xz archive: unpack it", False)),
    (b"7z\xbc\xaf\x27\x1c", FileType("a 7z archive: unpack it", False)),
    (b"\x89HDF", FileType("an HDF5 file (Keras), not GGUF", False)),
    (b"lmgg", _GGML),
    (b"fmgg", _GGML),
    (b"tjgg", _GGML),
    (b"algg", _GGML),
)  # fmt: skip
_HTML = re.compile(r"<!doctype html|<html|<head|<body", re.IGNORECASE)
_TITLE = re.compile(r"<title>\s*([^<]+?)\s*</title>", re.IGNORECASE)


def name_file_type(start: bytes) -> FileType:
    """Name the type of a file that begins with `start`, up to `SAMPLE_BYTES` of it."""
    if not start:
        return FileType("an empty file", True)
    if b"GGUF".startswith(start):
        return FileType(f"only the first {len(start)} bytes of a GGUF file", True)
    if not start.strip(b"\0"):
        return FileType("a file that begins with zeros, such as a download not finished", True)
    for signature, found in _SIGNATURES:
        if start.startswith(signature):
            return found
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and 2 <= length <= 100_000_000:
        return FileType("a safetensors file, not GGUF", False)
    return _name_text(start) or FileType(f"not a GGUF file; it begins with {start[:8]!r}", True)


def _name_text(start: bytes) -> FileType | None:
    try:
        # The sample may end within a character.
        text = start.decode(
            "utf-8-sig", errors="ignore" if len(start) >= SAMPLE_BYTES else "strict"
        )
    except UnicodeDecodeError:
        return None
    text = text.strip()
    if not text or not re.fullmatch(r"[^\x00-\x08\x0e-\x1f]+", text):
        return None
    words = " ".join(text.split())[:_WORDS]
    if _HTML.match(text):
        title = _TITLE.search(text)
        return FileType(
            f"an HTML page{f' ({title[1][:_WORDS]})' if title else ''}, not a model", True
        )
    if text.startswith("<"):
        return FileType(f"an XML text, not a model: {words}", True)
    if text[0] in "{[":
        return FileType(f"a JSON text, not a model: {words}", True)
    return FileType(f"a text, not a model: {words}", True)
