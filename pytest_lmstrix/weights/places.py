"""GGUF files on this machine: the usual folders, and the models below a folder."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import platformdirs
from msgspec import Struct

from pytest_lmstrix.weights.preflight import is_shard
from pytest_lmstrix.weights.source import SPLIT, parts, with_home


class Search(Struct, frozen=True):
    """The result of a search for models."""

    models: dict[str, Path]
    """Id -> the model's first file."""
    incomplete: tuple[str, ...]
    """Links that lead nowhere and split models without their first file, in words."""


def usual_places() -> list[Path]:
    """Return this user's model folders of LM Studio, Hugging Face and llama.cpp, existing or not.

    Source: the documentation of LM Studio, of huggingface_hub (HF_HUB_CACHE, HF_HOME) and of
    llama.cpp (LLAMA_CACHE).
    """
    home = Path.home()
    cache = platformdirs.user_cache_path()
    lmstudio = home / ".lmstudio"
    pointer = home / ".lmstudio-home-pointer"
    if pointer.is_file():
        lmstudio = Path(pointer.read_text(encoding="utf-8").strip())
    hf_home = os.environ.get("HF_HOME") or str(
        Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface"
    )
    return [
        *_downloads_folder(lmstudio / "settings.json"),
        lmstudio / "models",
        home / ".cache" / "lm-studio" / "models",
        with_home(os.environ.get("HF_HUB_CACHE") or str(Path(hf_home) / "hub")),
        with_home(os.environ.get("LLAMA_CACHE") or str(cache / "llama.cpp")),
    ]


def find(folders: Iterable[Path]) -> dict[str, Path]:
    """Return the model files below `folders` by id: see `search`."""
    return search(folders).models


def search(folders: Iterable[Path]) -> Search:
    """Find model files below `folders`: the first file of a split model, each file once.

    The id is the file name, prefixed by as many parent folders as make it unique.
    """
    first: dict[Path, Path] = {}
    incomplete: dict[Path, str] = {}
    for path in (path for folder in folders for path in sorted(_below(folder))):
        if path.is_symlink() and not path.exists():
            incomplete[path] = f"{path}: a link that leads nowhere, to {path.readlink()}"
        elif path.is_file() and not _is_later_part(path):
            first.setdefault(path.resolve(), path)
        elif path.is_file() and not (start := parts(path)[0]).exists():
            incomplete.setdefault(start, f"{path}: {start.name}, the first file of this split"
                                         " model, is missing")  # fmt: skip
    return Search(_named_apart(first.values()), tuple(incomplete.values()))


def _is_later_part(path: Path) -> bool:
    split = SPLIT.search(path.stem)
    return split is not None and int(split["number"]) != 1 and is_shard(path)


def _named_apart(paths: Iterable[Path]) -> dict[str, Path]:
    ids: dict[str, Path] = {}
    left, depth = list(paths), 1
    while left:
        count = Counter(_name(path, depth) for path in left)
        ids |= {_name(path, depth): path for path in left if count[_name(path, depth)] == 1}
        left = [path for path in left if count[_name(path, depth)] > 1]
        depth += 1
        if depth > max((len(path.parts) for path in left), default=0):
            ids |= {str(path): path for path in left}
            break
    return ids


def _below(folder: Path) -> Iterator[Path]:
    # Folders may be links, as to a larger disk; each folder counts once.
    left, seen = [folder], set()
    while left:
        for parent, folders, files in os.walk(left.pop(0)):
            real = os.path.realpath(parent)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            left += [link for name in folders if (link := Path(parent, name)).is_symlink()]
            yield from (Path(parent, name) for name in files if name.lower().endswith(".gguf"))


def _name(path: Path, depth: int) -> str:
    stem = path.with_name(SPLIT.sub("", path.stem))
    return "/".join(stem.parts[-depth:])


def _downloads_folder(settings: Path) -> Iterator[Path]:
    try:
        folder = json.loads(settings.read_text(encoding="utf-8"))["downloadsFolder"]
    except (OSError, ValueError, LookupError, TypeError):
        return  # no LM Studio, or its default folder
    if isinstance(folder, str):
        yield Path(folder)
