"""Finds GGUF files, and reads their headers.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import mmap
import os
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import platformdirs
from gguf import LlamaFileType
from gguf.constants import GGUFValueType as Type

from pytest_lmstrix.core.types import ModelFacts, fingerprint
from pytest_lmstrix.weights.source import SPLIT, parts

_FORMATS = {
    Type.UINT8: "<B",
    Type.INT8: "<b",
    Type.UINT16: "<H",
    Type.INT16: "<h",
    Type.UINT32: "<I",
    Type.INT32: "<i",
    Type.FLOAT32: "<f",
    Type.BOOL: "<?",
    Type.UINT64: "<Q",
    Type.INT64: "<q",
    Type.FLOAT64: "<d",
}
_MODEL_TYPES = {None, "model"}
"""Loadable values of `general.type`: no adapter, projector or importance matrix."""
_EMBEDDING_ARCHITECTURES = re.compile(r"bert$|^bert|-bert-|embed|t5encoder")

Metadata = Mapping[str, object]


def read_header(path: Path) -> Metadata:
    """Return the metadata of a GGUF file without arrays, and its `tensor_count`.

    The reader of the package `gguf` builds every array, which takes seconds a file.

    Raises:
        ValueError: It is not a GGUF file, or its header is incomplete.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path}: not a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(data).metadata()
            except (struct.error, UnicodeDecodeError, ValueError, KeyError) as error:
                raise ValueError(f"{path}: damaged GGUF header ({error})") from error


class _Reader:
    """A position in a GGUF header."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._position = 4

    def metadata(self) -> Metadata:
        version = self._number("<I")
        if version not in (2, 3):
            raise ValueError(f"version {version:#x}, known are 2 and 3 in little-endian")
        found: dict[str, object] = {"tensor_count": self._number("<Q")}
        for _ in range(self._number("<Q")):
            key = self._string()
            value = self._value(Type(self._number("<I")))
            if value is not None:
                found[key] = value
        return found

    def _value(self, kind: Type) -> Any:
        if kind == Type.STRING:
            return self._string()
        if kind != Type.ARRAY:
            return self._number(_FORMATS[kind])
        element = Type(self._number("<I"))
        count = self._number("<Q")
        if element == Type.STRING:
            for _ in range(count):
                self._skip(self._number("<Q"))
        else:
            self._skip(count * struct.calcsize(_FORMATS[element]))
        return None

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._data, self._position)
        self._position += struct.calcsize(form)
        return value

    def _string(self) -> str:
        size = self._number("<Q")
        self._skip(size)
        return self._data[self._position - size : self._position].decode()

    def _skip(self, size: int) -> None:
        self._position += size
        if self._position > len(self._data):
            raise ValueError("cut short")


def model_facts(path: Path, *, name: str | None = None, sha256: str | None = None) -> ModelFacts:
    """Return the facts in the header of a model file, the first one of a split model.

    `name` is its id, by default the file name without its suffix.

    Raises:
        ValueError: The header is incomplete, or not of a language or embedding model.
        OSError: It, or another part of a split model, cannot be read.
    """
    header = read_header(path)
    architecture = str(header.get("general.architecture", ""))
    if header.get("general.type") not in _MODEL_TYPES or architecture in ("", "clip"):
        raise ValueError(f"{path}: not a model by itself")
    if not header["tensor_count"]:
        raise ValueError(f"{path}: a vocabulary without tensors")
    context_limit = header.get(f"{architecture}.context_length")
    embeds = f"{architecture}.pooling_type" in header or _EMBEDDING_ARCHITECTURES.search(
        architecture
    )
    size_bytes = sum(part.stat().st_size for part in parts(path))
    return ModelFacts(
        id=name or SPLIT.sub("", path.stem),
        type="embedding" if embeds else "llm",
        context_limit=context_limit if isinstance(context_limit, int) else None,
        size_bytes=size_bytes,
        path=str(path),
        source=str(path),
        architecture=architecture,
        quantization=_quantization(header.get("general.file_type")),
        fingerprint=fingerprint(sha256=sha256, size_bytes=size_bytes, path=str(path)),
    )


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
        Path(os.environ.get("HF_HUB_CACHE") or Path(hf_home) / "hub").expanduser(),
        Path(os.environ.get("LLAMA_CACHE") or cache / "llama.cpp").expanduser(),
    ]


def find(folders: Iterable[Path]) -> dict[str, Path]:
    """Return the model files below `folders` by id; the first file of a split model, each once.

    The id is the file name, prefixed by as many parent folders as make it unique.
    """
    first: dict[Path, Path] = {}
    for folder in folders:
        for path in _gguf_files(folder):
            first.setdefault(path.resolve(), path)
    ids: dict[str, Path] = {}
    left, depth = list(first.values()), 1
    while left:
        count = Counter(_name(path, depth) for path in left)
        ids |= {_name(path, depth): path for path in left if count[_name(path, depth)] == 1}
        left = [path for path in left if count[_name(path, depth)] > 1]
        depth += 1
        if depth > max((len(path.parts) for path in left), default=0):
            ids |= {str(path): path for path in left}
            break
    return ids


def _gguf_files(folder: Path) -> Iterator[Path]:
    for path in sorted(_below(folder)):
        split = SPLIT.search(path.stem)
        if path.is_file() and (split is None or int(split["number"]) == 1):
            yield path


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


def _quantization(file_type: object) -> str | None:
    if not isinstance(file_type, int):
        return None
    try:
        return LlamaFileType(file_type).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return None
