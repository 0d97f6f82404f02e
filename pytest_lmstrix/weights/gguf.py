"""Reads the header of a GGUF file: its metadata and the list of its tensors.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and `ggml_type` in `ggml.h`
"""

from __future__ import annotations

import math
import mmap
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

MAGIC = b"GGUF"
ByteOrder = Literal["little", "big"]
Metadata = Mapping[str, object]

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
"""Type of a value -> its format; 8 is a string, 9 an array."""
_STRING, _ARRAY = 8, 9

TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}  # fmt: skip
"""Type of a tensor -> name, values a block and bytes a block."""
REMOVED_TENSOR_TYPES: Mapping[int, str] = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
}  # fmt: skip
"""Types that llama.cpp once wrote and does not read any more."""

_MAX_ENTRIES = 1 << 22
"""Keys, tensors and array elements of variable size; the largest models have 1 million."""
_MAX_KEY_BYTES = 65_535
_MAX_STRING_BYTES = 1 << 24
"""Longer values are skipped."""
_MAX_TENSOR_NAME_BYTES = 63
_MAX_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32


class HeaderError(ValueError):
    """A header that does not follow the specification."""


class HeaderIncomplete(HeaderError):
    """The data ends before the header does."""


class OtherVersion(HeaderError):
    """A version of GGUF, or a byte order, that llama.cpp does not read on this machine."""


class Tensor(Struct, frozen=True):
    """An entry of the list of tensors."""

    name: str
    shape: tuple[int, ...]
    type: int
    """A key of `TENSOR_TYPES` or `REMOVED_TENSOR_TYPES`, or a type newer than both."""
    offset: int
    """From the start of the tensor data, bytes."""

    @property
    def size_bytes(self) -> int | None:
        """Bytes of data, without padding; `None` for an unknown type."""
        if self.type not in TENSOR_TYPES:
            return None
        _, values, size = TENSOR_TYPES[self.type]
        return math.prod(self.shape) // values * size


class Header(Struct, frozen=True, kw_only=True):
    """The header of a GGUF file."""

    version: int
    metadata: Metadata
    """Without arrays and very long strings."""
    tensors: tuple[Tensor, ...]
    data_offset: int
    """Start of the tensor data in the file, bytes."""

    @property
    def end(self) -> int:
        """The least size in bytes of a file with the data of all tensors of known types."""
        ends = [each.offset + (each.size_bytes or 0) for each in self.tensors]
        return self.data_offset + max(ends) if ends else 0


def read_header(path: Path) -> Header:
    """Return the header of a GGUF file.

    Takes a fraction of a second and little memory, however hostile the file.

    Raises:
        HeaderError: The file is not GGUF, or its header is damaged.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise HeaderError("not a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse_header(data)


def parse_header(data: bytes | mmap.mmap) -> Header:
    """Return the header that `data`, a GGUF file or the beginning of one, starts with.

    Raises:
        HeaderIncomplete: `data` ends before the header does.
        HeaderError: It is damaged in another way.
    """
    try:
        return _Reader(data).header()
    except struct.error as error:
        raise HeaderIncomplete("the file ends within its header") from error


class _Reader:
    """A position in a GGUF header."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self._position = len(MAGIC)
        self._order = "<" if sys.byteorder == "little" else ">"
        self._entries = 0

    def header(self) -> Header:
        version = self._number("I")
        _check_version(version)
        tensor_count, value_count = self._number("Q"), self._number("Q")
        self._count(tensor_count + value_count)
        metadata = self._metadata(value_count)
        tensors = tuple(self._tensor() for _ in range(tensor_count))
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise HeaderError(f"general.alignment is {alignment!r}, not a power of two")
        return Header(
            version=version,
            metadata=metadata,
            tensors=tensors,
            data_offset=-(-self._position // alignment) * alignment,
        )

    def _metadata(self, count: int) -> dict[str, object]:
        found: dict[str, object] = {}
        for _ in range(count):
            key = self._string(_MAX_KEY_BYTES)
            if key is None:
                raise HeaderError(f"the name of a value is longer than {_MAX_KEY_BYTES:,} bytes")
            if key in found:
                raise HeaderError(f"{key!r} is there twice")
            found[key] = self._value(self._number("I"))
        return {key: value for key, value in found.items() if value is not None}

    def _value(self, kind: int) -> object:
        if kind == _STRING:
            return self._string(_MAX_STRING_BYTES)
        if kind != _ARRAY:
            return self._number(_format(kind))
        element, count = self._number("I"), self._number("Q")
        if element == _STRING:
            self._skip_strings(count)
        else:
            self._skip(count * struct.calcsize(f"={_format(element)}"))
        return None

    def _tensor(self) -> Tensor:
        name = self._string(_MAX_TENSOR_NAME_BYTES)
        if name is None:
            raise HeaderError(f"the name of a tensor is longer than {_MAX_TENSOR_NAME_BYTES} bytes")
        dimensions = self._number("I")
        if dimensions > _MAX_DIMENSIONS:
            raise HeaderError(f"tensor {name!r} has {dimensions:,} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        tensor = Tensor(name, shape, self._number("I"), self._number("Q"))
        _, block, _ = TENSOR_TYPES.get(tensor.type, ("", 1, 1))
        if shape and shape[0] % block:
            raise HeaderError(
                f"tensor {name!r} has rows of {shape[0]:,}, not a multiple of {block}"
            )
        return tensor

    def _number(self, form: str) -> Any:
        form = self._order + form
        (value,) = struct.unpack_from(form, self._data, self._position)
        self._position += struct.calcsize(form)
        return value

    def _string(self, most: int) -> str | None:
        """Read a string; `None` if it is longer than `most` bytes."""
        size = self._number("Q")
        self._skip(size)
        if size > most:
            return None
        return self._data[self._position - size : self._position].decode(errors="replace")

    def _skip_strings(self, count: int) -> None:
        self._count(count)
        length, data, position = struct.Struct(f"{self._order}Q"), self._data, self._position
        for _ in range(count):
            position += 8 + length.unpack_from(data, position)[0]
            if position > self._size:
                break
        self._position = position
        self._skip(0)

    def _skip(self, size: int) -> None:
        self._position += size
        if self._position > self._size:
            raise HeaderIncomplete("the file ends within its header")

    def _count(self, entries: int) -> None:
        self._entries += entries
        if self._entries > _MAX_ENTRIES:
            raise HeaderError(f"a header with {self._entries:,} entries")


def _format(kind: int) -> str:
    if kind not in _NUMBERS:
        raise HeaderError("an array of arrays" if kind == _ARRAY else f"a value of type {kind:,}")
    return _NUMBERS[kind]


def _check_version(version: int) -> None:
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version in (2, 3):
        return
    if swapped in (1, 2, 3):
        other: ByteOrder = "big" if sys.byteorder == "little" else "little"
        raise OtherVersion(f"made for {other}-endian machines")
    if version == 1:
        raise OtherVersion("of GGUF version 1, which llama.cpp does not read any more")
    if 3 < version < 100:
        raise OtherVersion(f"of GGUF version {version}, newer than the known 2 and 3")
    raise HeaderError(f"GGUF version {version:#x}")
