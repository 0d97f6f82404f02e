"""Reads the arguments of requests in users' own tests; a mistake in them is the test's.

Mistakes raise `TypeError` or `ValueError` before the engine is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_lmstrix.core.measured import MAX_TOKENS
from pytest_lmstrix.engines.request import Image

ImageSource = str | os.PathLike[str] | bytes

MAX_TEMPERATURE = 100
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)


def read_text(text: object, name: str = "a prompt") -> str:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, got {text!r}")
    return text


def read_count(value: object, name: str, *, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if not least <= value <= MAX_TOKENS:
        raise ValueError(f"{name} must be from {least:,} to {MAX_TOKENS:,}, got {value!r}")
    return value


def read_switch(value: object, name: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{name} must be True, False or None, got {value!r}")
    return value


def read_temperature(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"temperature must be a number, got {value!r}")
    if not 0 <= value <= MAX_TEMPERATURE:
        raise ValueError(f"temperature must be from 0 to {MAX_TEMPERATURE}, got {value!r}")
    return value


def read_stop(value: object) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise TypeError(f"stop must be a str or a list of them, got {value!r}")
    for text in texts:
        if not read_text(text, "a text of stop"):
            raise ValueError("a text of stop must not be empty")
    return tuple(texts)


def read_fill(value: object) -> int | float:
    """Return a number of tokens, or a share of the context as a float below 1."""
    if isinstance(value, float):
        if not 0 < value < 1:
            raise ValueError(f"fill must be a share between 0 and 1, or tokens, got {value!r}")
        return value
    return read_count(value, "fill")


def read_images(images: object) -> tuple[Image, ...]:
    """Return images given as paths or bytes.

    Raises:
        OSError: A file cannot be read.
    """
    if isinstance(images, str | bytes) or not isinstance(images, Iterable):
        raise TypeError(f"images must be a list of paths or bytes, got {images!r:.80}")
    return tuple(map(_read_image, images))


def _read_image(image: object) -> Image:
    if isinstance(image, str | os.PathLike):
        data = Path(image).read_bytes()
    elif isinstance(image, bytes):
        data = image
    else:
        raise TypeError(f"an image must be a path or bytes, got {image!r}")
    media_type = next((kind for head, kind in _SIGNATURES if data.startswith(head)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        media_type = "image/webp"
    if media_type is None:
        source = "bytes" if isinstance(image, bytes) else str(image)
        raise ValueError(f"not an image that is known (PNG, JPEG, GIF, BMP, WebP): {source}")
    return Image(data=data, media_type=media_type)
