"""The reader of GGUF headers, sound and hostile."""

from __future__ import annotations

import contextlib
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_lmstrix.weights.gguf import (
    TENSOR_TYPES,
    HeaderError,
    HeaderIncomplete,
    OtherVersion,
    parse_header,
    read_header,
)
from tests.standin.gguf_bytes import TensorInfo, a_model, gguf_bytes, text, typed, write_model

START = b"GGUF" + struct.pack("<I", 3)


def test_values_and_tensors_are_read() -> None:
    values = {"a": 7, "b": "é", "c": True, "d": 0.5, "e": 2**40, "f": -3, "g": ["x", "y"], "h": []}
    tensors = [TensorInfo("one", (32, 3), 2, 0), TensorInfo("two", (5,), 0, 64)]
    header = parse_header(gguf_bytes(values, tensors, data=bytes(84)))
    assert header.metadata == {key: values[key] for key in "abcdef"}
    assert [(each.name, each.shape, each.size_bytes) for each in header.tensors] == [
        ("one", (32, 3), 54),
        ("two", (5,), 20),
    ]
    assert header.end == header.data_offset + 84 == len(gguf_bytes(values, tensors, data=bytes(84)))


def test_the_reader_agrees_with_the_library(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = write_model(tmp_path / "tiny.gguf")
    reader, header = gguf.GGUFReader(path), read_header(path)
    scalars = {key: each.contents() for key, each in reader.fields.items() if len(each.types) == 1}
    assert header.metadata == {
        key: value for key, value in scalars.items() if not key.startswith("GGUF.")
    }
    assert [(each.name, each.size_bytes) for each in header.tensors] == [
        (each.name, each.n_bytes) for each in reader.tensors
    ]
    assert header.data_offset == reader.data_offset


def test_the_types_of_tensors_are_those_of_the_library() -> None:
    constants = pytest.importorskip("gguf.constants")
    known = {
        kind.value: (kind.name, *constants.GGML_QUANT_SIZES[kind])
        for kind in constants.GGMLQuantizationType
    }
    q8_1 = known.pop(9)  # the library adds up to 40 bytes; `block_q8_1` has 36
    assert q8_1 == ("Q8_1", 32, 40)
    assert {kind: TENSOR_TYPES[kind] for kind in known if kind in TENSOR_TYPES} == {
        kind: known[kind] for kind in known if kind in TENSOR_TYPES
    }
    assert TENSOR_TYPES.keys() - {9} <= known.keys()


def test_a_header_cut_anywhere_is_incomplete() -> None:
    whole = gguf_bytes(a_model(), data=b"")
    end = parse_header(whole).data_offset
    for size in range(4, end - 32):
        with pytest.raises(HeaderIncomplete):
            parse_header(whole[:size])


def test_an_alignment_of_its_own_moves_the_data() -> None:
    values = a_model(general__alignment=4096)
    assert parse_header(gguf_bytes(values)).data_offset == 4096
    for wrong in (0, 3, "x"):
        with pytest.raises(HeaderError, match="not a power of two"):
            parse_header(gguf_bytes(a_model(general__alignment=wrong)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gguf_bytes({}, order=">"), "made for big-endian machines"),
        (gguf_bytes({}, version=2, order=">"), "made for big-endian machines"),
        (gguf_bytes({}, version=1), "version 1, which llama.cpp does not read any more"),
        (gguf_bytes({}, version=4), "version 4, newer than the known 2 and 3"),
    ],
)
def test_other_versions_are_named(data: bytes, words: str) -> None:
    with pytest.raises(OtherVersion, match=words):
        parse_header(data)


HUGE = 2**64 - 1
HOSTILE = {
    "a count of values": START + struct.pack("<QQ", 1, HUGE),
    "a count of tensors": START + struct.pack("<QQ", HUGE, 0),
    "a count that is barely allowed": START + struct.pack("<QQ", 0, 1 << 22),
    "a key's length": START + struct.pack("<QQQ", 0, 1, HUGE) + bytes(100),
    "a long key": START + struct.pack("<QQ", 0, 1) + text(b"k" * 100_000) + typed(1),
    "a string's length": START + struct.pack("<QQ", 0, 1) + text("k") + struct.pack("<IQ", 8, HUGE),
    "an array's length": START
    + struct.pack("<QQ", 0, 1)
    + text("k")
    + struct.pack("<IIQ", 9, 12, HUGE),
    "an array of many strings": START
    + struct.pack("<QQ", 0, 1)
    + text("k")
    + struct.pack("<IIQ", 9, 8, HUGE)
    + bytes(1000),
    "an array of arrays": START
    + struct.pack("<QQ", 0, 1)
    + text("k")
    + struct.pack("<IIQ", 9, 9, 1000) * 1000,
    "an unknown type": START + struct.pack("<QQ", 0, 1) + text("k") + struct.pack("<I", 99),
    "a key that is there twice": START + struct.pack("<QQ", 0, 2) + (text("k") + typed(1)) * 2,
    "many dimensions": START + struct.pack("<QQ", 1, 0) + text("t") + struct.pack("<I", HUGE >> 32),
    "a long name of a tensor": gguf_bytes({}, [TensorInfo("n" * 64)]),
    "rows that end within a block": gguf_bytes({}, [TensorInfo("t", (33,), 2)]),
    "no version": b"GGUF" + b"\xee" * 100,
    "nothing else": b"GGUF",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_refused_at_once(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(HeaderError):
            read_header(path)
        assert time.process_time() - started < 1
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_long_string_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    size = 1 << 26
    with path.open("wb") as file:
        file.write(START + struct.pack("<QQ", 0, 2) + text("k") + struct.pack("<IQ", 8, size))
        file.seek(size, 1)
        file.write(text("after") + typed(1))
    tracemalloc.start()
    try:
        assert read_header(path).metadata == {"after": 1}
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_name_that_is_not_utf_8_is_read() -> None:
    data = gguf_bytes({"general.name": "XX"}).replace(b"XX", b"\xe9\xff")
    assert parse_header(data).metadata == {"general.name": "\N{REPLACEMENT CHARACTER}" * 2}


@settings(deadline=None)  # a busy machine is no defect
@given(
    position=st.integers(4, 400), noise=st.binary(min_size=1, max_size=16), cut=st.integers(0, 400)
)
def test_a_damaged_header_is_read_or_refused(position: int, noise: bytes, cut: int) -> None:
    data = bytearray(gguf_bytes(a_model()))
    data[position : position + len(noise)] = noise
    with contextlib.suppress(HeaderError):  # any other exception is a failure
        assert parse_header(bytes(data[: max(4, len(data) - cut)])).version in (2, 3)
