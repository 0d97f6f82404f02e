"""Draws the pictures that `capability` shows: PNG files, made without an image library. Pure.

Source: https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import cache

SIDE = 336
"""Width and height in pixels: what most vision encoders see at once."""
COLOURS = {
    "red": (220, 20, 20),
    "green": (20, 160, 40),
    "blue": (20, 60, 220),
    "yellow": (250, 220, 20),
    "black": (10, 10, 10),
    "white": (250, 250, 250),
}
"""Name -> red, green and blue."""
_DIGITS = {
    "2": ("01110", "10001", "00001", "00110", "01000", "10000", "11111"),
    "4": ("00010", "00110", "01010", "10010", "11111", "00010", "00010"),
    "7": ("11111", "00001", "00010", "00100", "01000", "01000", "01000"),
}
"""Digit -> its rows, 1 for ink."""
_WIDTH, _HEIGHT = 5, 7

_Pixel = tuple[int, int, int]


def number_picture(digits: str) -> bytes:
    """Return a picture of a number in large black digits on white."""
    scale = SIDE // (len(digits) * (_WIDTH + 1) + 1)
    left = (SIDE - scale * (len(digits) * (_WIDTH + 1) - 1)) // 2
    top = (SIDE - scale * _HEIGHT) // 2

    def pixel(x: int, row: int) -> _Pixel:
        place, within = divmod((x - left) // scale, _WIDTH + 1)
        inside = 0 <= place < len(digits) and 0 <= row < _HEIGHT and within < _WIDTH
        has_ink = inside and _DIGITS[digits[place]][row][within] == "1"
        return COLOURS["black" if has_ink else "white"]

    @cache
    def line(row: int) -> list[_Pixel]:
        return [pixel(x, row) for x in range(SIDE)]

    return _png([line((y - top) // scale) for y in range(SIDE)])


def stripes_picture(names: Sequence[str]) -> bytes:
    """Return a picture of horizontal stripes in these colours, from top to bottom."""
    rows = [[COLOURS[names[y * len(names) // SIDE]]] * SIDE for y in range(SIDE)]
    return _png(rows)


def _png(rows: Sequence[Sequence[_Pixel]]) -> bytes:
    unfiltered = b"".join(b"\0" + bytes(value for pixel in row for value in pixel) for row in rows)
    depth, colour_type = 8, 2  # bits of a value; red, green and blue
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), depth, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(unfiltered, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
