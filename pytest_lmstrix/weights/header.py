"""The header of a GGUF file as bytes: metadata and tensor list, all that a dry run reads.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

from pytest_lmstrix.weights.gguf import HeaderError, HeaderIncomplete, parse_header
from pytest_lmstrix.weights.source import parts

MOST_BYTES = 64 << 20
"""No header is longer: those of vocabularies with 256,000 tokens have 8 MiB."""


def header_size(data: bytes | mmap.mmap) -> int | None:
    """Return the length of the header that `data` begins with, in bytes; `None` if it ends before.

    Raises:
        ValueError: It is not the header of a GGUF file.
    """
    if data[:4] != b"GGUF"[: len(data)]:
        raise HeaderError(f"not a GGUF file; it begins with {data[:4]!r}")
    try:
        size = parse_header(data).data_offset
    except HeaderIncomplete:
        return None
    return size if size <= len(data) else None


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
