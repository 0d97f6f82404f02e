"""The pictures that `capability` shows: valid PNG files that show what they should."""

from __future__ import annotations

import struct
import zlib

import pytest

from pytest_lmstrix.probes.capability.pictures import COLOURS, SIDE, number_picture, stripes_picture


def rows_of(picture: bytes) -> list[bytes]:
    """Decode a PNG without filters, and check all of its checksums."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds, data = 8, [], b""
    while at < len(picture):
        size, kind = struct.unpack(">I4s", picture[at : at + 8])
        body = picture[at + 8 : at + 8 + size]
        (checksum,) = struct.unpack(">I", picture[at + 8 + size : at + 12 + size])
        assert checksum == zlib.crc32(kind + body)
        kinds.append(kind)
        data += body if kind == b"IDAT" else b""
        if kind == b"IHDR":
            assert struct.unpack(">IIBBBBB", body) == (SIDE, SIDE, 8, 2, 0, 0, 0)
        at += 12 + size
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
    lines, step = zlib.decompress(data), 1 + 3 * SIDE
    assert len(lines) == SIDE * step
    assert set(lines[::step]) == {0}
    return [lines[at + 1 : at + step] for at in range(0, len(lines), step)]


def test_stripes_have_their_colours_from_top_to_bottom() -> None:
    names = ("black", "blue", "yellow")
    rows = rows_of(stripes_picture(names))
    for place, name in enumerate(names):
        assert rows[SIDE * place // 3 + 9] == bytes(COLOURS[name]) * SIDE


@pytest.mark.parametrize("digits", ["4", "72", "472"])
def test_a_number_is_drawn_in_separate_digits(digits: str) -> None:
    picture = number_picture(digits)
    black = bytes(COLOURS["black"])
    inked = [any(row[3 * x : 3 * x + 3] == black for row in rows_of(picture)) for x in range(SIDE)]
    starts = [x for x in range(1, SIDE) if inked[x] and not inked[x - 1]]
    assert len(starts) == len(digits)
    assert not inked[0]
    assert not inked[-1]
    assert len(picture) < 2_000


def test_digits_look_as_in_a_font() -> None:
    rows = rows_of(number_picture("7"))
    black = bytes(COLOURS["black"])
    cells = [[row[3 * x : 3 * x + 3] == black for x in range(SIDE)] for row in rows]
    drawn = [row for row in cells if any(row)]
    left = min(row.index(True) for row in drawn)
    height, width = len(drawn) // 7, len(drawn) * 5 // 7
    shape = [
        "".join("#" if row[left + x + height // 2] else "." for x in range(0, width, height))
        for row in drawn[height // 2 :: height]
    ]
    assert shape == ["#####", "....#", "...#.", "..#..", ".#...", ".#...", ".#..."]
