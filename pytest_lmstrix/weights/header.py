"""The header of a GGUF file as bytes: metadata and tensor list, all that a dry run reads.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from pathlib import Path

from pytest_lmstrix.weights.source import parts

MOST_BYTES = 64 << 20
"""No header is longer: those of vocabularies with 256,000 tokens have 8 MiB."""
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Type of a value -> its bytes; 8 is a string, 9 an array."""
_STRING, _ARRAY = 8, 9


def header_size(data: bytes | mmap.mmap) -> int | None:
    """Return the bytes of the header that `data` begins with; `None` if `data` ends before it.

    Raises:
        ValueError: It is not the header of a GGUF file.
    """
    if data[:4] != b"GGUF"[: len(data)]:
        raise ValueError(f"not a GGUF file; it begins with {data[:4]!r}")
    try:
        return _Scanner(data).end()
    except struct.error:
        return None


def header_digest(path: Path) -> str:
    """Return a hash of the headers of all parts of a model, and of the size of their files.

    Raises:
        ValueError: A part is not a GGUF file, or ends before its header does.
        OSError: A part cannot be read.
    """
    digest = hashlib.sha256()
    for part in parts(path):
        with part.open("rb") as file:
            size_bytes = part.stat().st_size
            if not size_bytes:
                raise ValueError("an empty file")
            mapped_bytes = min(size_bytes, MOST_BYTES)
            with mmap.mmap(file.fileno(), mapped_bytes, access=mmap.ACCESS_READ) as data:
                size = header_size(data)
                if size is None:
                    raise ValueError("the file ends within its header")
                digest.update(f"{size_bytes}:{size}:".encode())
                digest.update(data[:size])
    return digest.hexdigest()


class _Scanner:
    """A position in a header."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self._position = 4

    def end(self) -> int:
        version = self._number("<I")
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version:#x}, known are 2 and 3 in little-endian")
        tensors, values = self._number("<Q"), self._number("<Q")
        for _ in range(values):
            self._skip(self._number("<Q"))
            self._skip_value(self._number("<I"))
        for _ in range(tensors):
            self._skip(self._number("<Q"))
            self._skip(8 * self._number("<I") + 12)  # dimensions, type and offset
        return self._position

    def _skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self._skip(self._number("<Q"))
        elif kind == _ARRAY:
            element, count = self._number("<I"), self._number("<Q")
            if element == _STRING:
                for _ in range(count):
                    self._skip(self._number("<Q"))
            else:
                self._skip(count * _size_of(element))
        else:
            self._skip(_size_of(kind))

    def _number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._position)
        self._position += struct.calcsize(form)
        return int(value)

    def _skip(self, size: int) -> None:
        self._position += size
        if self._position > len(self._data):
            raise struct.error("cut short")


def _size_of(kind: int) -> int:
    if kind not in _SIZES:
        raise ValueError(f"a value of the unknown type {kind}")
    return _SIZES[kind]
