"""The header of a GGUF file as bytes: metadata and tensor list, all that a dry run reads.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

from pytest_lmstrix.weights.gguf import (
    Header,
    HeaderError,
    HeaderIncomplete,
    parse_header,
    read_header,
)
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


def model_files(path: Path, header: Header) -> list[Path]:
    """Return the files of a model by the count in its header, as far as its name allows."""
    count = header.metadata.get("split.count")
    files = parts(path)
    return files if type(count) is int and len(files) == count > 1 else [path]


def header_digest(path: Path) -> str:
    """Return a hash of the headers of all files of a model, and of the size of these files.

    Raises:
        ValueError: A file is not a GGUF file, or ends before its header does.
        OSError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for part in model_files(path, read_header(path)):
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
