"""Knows a GGUF file before it is loaded: kind, integrity and declared context, by its header."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH, ModelFacts, fingerprint
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.weights.filetype import SAMPLE_BYTES, name_file_type
from pytest_lmstrix.weights.gguf import (
    MAGIC,
    REMOVED_TENSOR_TYPES,
    Header,
    HeaderError,
    OtherVersion,
    read_header,
)
from pytest_lmstrix.weights.header import model_files
from pytest_lmstrix.weights.source import SPLIT, parts, why_missing

FileKind = Literal[
    "model", "embedding", "encoder-decoder", "adapter", "control vector", "projector",
    "importance matrix", "vocabulary", "shard", "image model", "speech model", "other",
]  # fmt: skip

_EMBEDDING_ARCHITECTURES = re.compile(r"bert$|^bert|-bert-|embed|t5encoder")
_OTHER_ARCHITECTURES: dict[str, FileKind] = {
    "clip": "projector", "controlvector": "control vector", "imatrix": "importance matrix",
    "t5": "encoder-decoder", "wavtokenizer-dec": "speech model", "whisper": "speech model",
    **dict.fromkeys(
        ("flux", "sd1", "sdxl", "sd3", "aura", "hidream", "cosmos", "ltxv", "hyvid", "wan",
         "lumina2", "qwen_image"),
        "image model",
    ),
}  # fmt: skip
_OTHER_TYPES: dict[str, FileKind] = {
    "adapter": "adapter", "mmproj": "projector", "projector": "projector",
    "clip-vision": "projector", "imatrix": "importance matrix", "vocab": "vocabulary",
}  # fmt: skip
"""`general.type` of what is not a model by itself."""
_WORDS: dict[FileKind, str] = {
    "encoder-decoder": "an encoder-decoder model ({architecture}), whose encoder llama.cpp's"
    " server does not run",
    "adapter": "an adapter (LoRA) for {base}, not a model by itself",
    "control vector": "a control vector, not a model by itself",
    "projector": "a projector (mmproj) of a model that sees or hears, not a model by itself",
    "importance matrix": "an importance matrix for quantization, not a model",
    "vocabulary": "a vocabulary without tensors, not a model",
    "image model": "an image or video model ({architecture}), not a language model",
    "speech model": "a speech model ({architecture}), not a language model",
    "other": "a GGUF file that names no architecture, not a language model",
}
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0", 1024: "GUESSED",
}  # fmt: skip
"""`general.file_type` -> quantization, as `llama_ftype` in `llama.h` names it."""


class _Problem(NamedTuple):
    verdict: Verdict
    reason: str


class Preflight(Struct, frozen=True, kw_only=True):
    """What a file is, as far as that can be known without loading it."""

    path: Path
    kind: FileKind = "other"
    architecture: str | None = None
    context_length: int | None = None
    """Declared maximum, tokens."""
    quantization: str | None = None
    parts: tuple[Path, ...] = ()
    """All files of the model, this one first."""
    size_bytes: int | None = None
    """Of all parts."""
    header: Header | None = None
    """Of this file."""
    verdict: Verdict | None = None
    """Why llama.cpp cannot run it as a language model: `corrupted`, `unsupported` or
    `model_not_found`; `None` if nothing is known against it."""
    reason: str = ""
    """The same in words, without the path."""

    @property
    def pooling_type(self) -> int | None:
        """How the vectors of tokens become one, as `llama_pooling_type`; `None` if not named."""
        key = f"{self.architecture}.pooling_type"
        return _number(self.header, key) if self.header is not None else None

    def require(self) -> Preflight:
        """Return this preflight.

        Raises:
            Failure: The file has a verdict.
        """
        if self.verdict is not None:
            raise Failure(f"{self.path.name}: {self.reason}", verdict=self.verdict, phase="load")
        return self

    def facts(self, *, name: str | None = None, sha256: str | None = None) -> ModelFacts:
        """Return the facts of a file without a verdict, under the id `name` or the file's name."""
        return ModelFacts(
            id=name or SPLIT.sub("", self.path.stem),
            type="embedding" if self.kind == "embedding" else "llm",
            context_limit=self.context_length,
            size_bytes=self.size_bytes,
            path=str(self.path),
            source=str(self.path),
            architecture=self.architecture,
            quantization=self.quantization,
            fingerprint=fingerprint(sha256=sha256, size_bytes=self.size_bytes, path=str(self.path)),
        )


def preflight(path: Path) -> Preflight:
    """Judge a model file, or the first file of a split model, and all its parts.

    Reads headers only; content of files is never an error, but a verdict.

    Raises:
        OSError: A file is there and cannot be read.
    """
    if not path.is_file():
        return Preflight(path=path, verdict=Verdict.MODEL_NOT_FOUND, reason=why_missing(path))
    header = _header(path)
    if isinstance(header, _Problem):
        return Preflight(path=path, parts=(path,), size_bytes=path.stat().st_size,
                         **header._asdict())  # fmt: skip
    files = model_files(path, header)
    problem = next(_problems(path, header, files), None)
    architecture = _text(header, "general.architecture")
    return Preflight(
        path=path,
        kind=_kind(header),
        architecture=architecture or None,
        context_length=_context_length(header),
        quantization=_quantization(header),
        parts=tuple(files),
        size_bytes=sum(each.stat().st_size for each in files if each.is_file()),
        header=header,
        verdict=problem.verdict if problem else None,
        reason=problem.reason if problem else "",
    )


def is_shard(path: Path) -> bool:
    """Whether a file with the name of a later part is one, or cannot be read at all."""
    try:
        header = _header(path)
    except OSError:
        return True
    return isinstance(header, _Problem) or _kind(header) == "shard"


def _header(path: Path) -> Header | _Problem:
    """Read the header, else return the reason against the file."""
    with path.open("rb") as file:
        start = file.read(SAMPLE_BYTES)
    if not start.startswith(MAGIC):
        words, damaged = name_file_type(start)
        return _Problem(Verdict.CORRUPTED if damaged else Verdict.UNSUPPORTED, words)
    try:
        return read_header(path)
    except OtherVersion as error:
        return _Problem(Verdict.UNSUPPORTED, str(error))
    except HeaderError as error:
        return _Problem(Verdict.CORRUPTED, f"damaged: {error}")


def _problems(path: Path, header: Header, files: list[Path]) -> Iterator[_Problem]:
    """Yield the reasons not to load a file, the most specific first."""
    kind = _kind(header)
    if kind == "shard":
        yield _Problem(Verdict.UNSUPPORTED, _words_of_shard(path, header))
    elif kind in _WORDS:
        base = _text(header, "general.base_model.0.name") or _text(header, "general.architecture")
        architecture = _text(header, "general.architecture")
        words = _WORDS[kind].format(architecture=architecture, base=base or "another model")
        yield _Problem(Verdict.UNSUPPORTED, words)
    yield from _problems_of_tensors(path, header)
    yield from _problems_of_parts(path, header, files)
    yield from _problems_of_context(header)


def _problems_of_tensors(path: Path, header: Header) -> Iterator[_Problem]:
    removed = {each.type for each in header.tensors} & REMOVED_TENSOR_TYPES.keys()
    if removed:
        names = ", ".join(REMOVED_TENSOR_TYPES[each] for each in sorted(removed))
        reason = f"quantized as {names}, which llama.cpp does not read any more"
        yield _Problem(Verdict.UNSUPPORTED, reason)
    size = path.stat().st_size
    if size < header.end:
        reason = f"cut short: {header.end - size:,} of its {header.end:,} bytes are missing"
        yield _Problem(Verdict.CORRUPTED, reason)


def _problems_of_parts(path: Path, header: Header, files: list[Path]) -> Iterator[_Problem]:
    count = _number(header, "split.count") or 0
    if count > 1 and len(files) != count:
        reason = f"the first of {count:,} files, whose name must end in -00001-of-{count:05}"
        yield _Problem(Verdict.MODEL_NOT_FOUND, f"{reason} for the others to be found")
    missing = [each.name for each in files[1:] if not each.is_file()]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        reason = f"the first of {count:,} files, of which {missing[0]}{more} are missing"
        yield _Problem(Verdict.MODEL_NOT_FOUND, reason if more else reason.replace(" are ", " is "))
    for number, part in enumerate(files[1:], start=1):
        if part.is_file():
            for verdict, reason in _problems_of_part(part, number, count):
                yield _Problem(verdict, f"its part {part.name} is {reason}")


def _problems_of_part(path: Path, number: int, count: int) -> Iterator[_Problem]:
    header = _header(path)
    if isinstance(header, _Problem):
        yield header
        return
    if (_number(header, "split.no"), _number(header, "split.count")) != (number, count):
        yield _Problem(Verdict.CORRUPTED, f"not file {number + 1:,} of {count:,}")
    yield from _problems_of_tensors(path, header)


def _problems_of_context(header: Header) -> Iterator[_Problem]:
    key = f"{_text(header, 'general.architecture')}.context_length"
    declared = header.metadata.get(key)
    if declared is not None and _context_length(header) is None:
        reason = f"{key} is {declared!r}, not a whole number from 1 to {MAX_CONTEXT_LENGTH:,}"
        yield _Problem(Verdict.CORRUPTED, reason)


def _kind(header: Header) -> FileKind:
    architecture = _text(header, "general.architecture")
    if (_number(header, "split.no") or 0) > 0 and (_number(header, "split.count") or 0) > 1:
        return "shard"
    if (kind := _OTHER_TYPES.get(_text(header, "general.type"))) is not None:
        return kind
    if "adapter.type" in header.metadata:
        return "adapter"
    if not architecture:
        return "other"
    if (kind := _OTHER_ARCHITECTURES.get(architecture)) is not None:
        return kind
    # The first file of a split model may hold metadata alone.
    if not header.tensors and not _number(header, "split.tensors.count"):
        return "vocabulary"
    pooled = f"{architecture}.pooling_type" in header.metadata
    return "embedding" if pooled or _EMBEDDING_ARCHITECTURES.search(architecture) else "model"


def _words_of_shard(path: Path, header: Header) -> str:
    number, count = _number(header, "split.no") or 0, _number(header, "split.count") or 0
    words = f"file {number + 1:,} of the {count:,} of a split model"
    if SPLIT.search(path.stem) is None:
        return f"{words}; name the first of them"
    first = parts(path)[0]
    state = "" if first.is_file() else ", which is missing"
    return f"{words}; name the first of them, {first.name}{state}"


def _context_length(header: Header) -> int | None:
    declared = header.metadata.get(f"{_text(header, 'general.architecture')}.context_length")
    valid = type(declared) is int and 1 <= declared <= MAX_CONTEXT_LENGTH
    return declared if valid and isinstance(declared, int) else None


def _quantization(header: Header) -> str | None:
    file_type = _number(header, "general.file_type")
    return _FILE_TYPES.get(file_type) if file_type is not None else None


def _text(header: Header, key: str) -> str:
    value = header.metadata.get(key)
    return value if isinstance(value, str) else ""


def _number(header: Header, key: str) -> int | None:
    value = header.metadata.get(key)
    return value if type(value) is int else None
