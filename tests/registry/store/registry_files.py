"""Files of a registry, as they are on disk."""

from __future__ import annotations

from pathlib import Path

from pytest_lmstrix.registry.store import Registry


def written(path: Path, *lines: bytes) -> Registry:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(lines))
    return Registry(path)


def corrupt_files(path: Path) -> list[Path]:
    return sorted(path.parent.glob("registry.corrupt-*.jsonl"))
