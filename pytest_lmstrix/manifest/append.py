"""Appends new models to models.yaml; existing bytes never change."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from pytest_lmstrix.core.types import Model, ModelFacts
from pytest_lmstrix.manifest.read import (
    Manifest,
    ManifestError,
    ManifestNotFound,
    parse_manifest,
    read_bytes,
)
from pytest_lmstrix.manifest.variants import entries_of
from pytest_lmstrix.system.atomic_write import atomic_write

_NEW = """\
# The models that `pytest --lmstrix` tests, one entry each.
# `pytest --lmstrix-scan` appends the models it finds and never changes existing lines.
defaults:
  engine: {engine}
  contexts: ladder    # or a list of sizes in tokens, such as [8192, 32768]
models:
"""
_WORD = re.compile(r"(hf:)?/?[A-Za-z][A-Za-z0-9_.@]*[/-][A-Za-z0-9_.@/-]*")
"""Most ids and sources: a letter first and a `/` or `-` mean text in YAML."""
_FACTS = (
    "type",
    "context_limit",
    "size_bytes",
    "architecture",
    "quantization",
    "capabilities",
    "source",
)


def model_of(facts: ModelFacts, engine: str) -> Model:
    """Return the manifest entry for the facts of an engine's model."""
    known = {name: getattr(facts, name) for name in _FACTS}
    return Model(id=facts.id, engine=engine, **known)


def append_models(
    path: Path, models: Sequence[Model], *, engine: str = "lmstudio"
) -> tuple[Model, ...]:
    """Append those `models` that the manifest `path` does not have, and return them.

    A missing file is created if there is anything to append. The old content stays byte for byte
    the beginning of the new file, which replaces the old one atomically. Models with an invalid
    id and facts that are out of bounds are left out. `engine` is the default engine.

    Raises:
        ManifestError: The file is not valid, or does not end with a list to append to.
    """
    try:
        old = read_bytes(path)
        manifest = parse_manifest(old, path, engine=engine, may_be_empty=True)
    except ManifestNotFound:
        old = None
        manifest = Manifest(models=(), default_engine=engine, has_list=False, indent=2)
    entries = list(_new_entries(models, manifest))
    if not entries:
        return ()
    text = "".join(_lines(entry, manifest.indent) for entry in entries)
    if old is None:
        new = (_NEW.format(engine=_flow(engine)) + text).encode()
    else:
        text = text if manifest.has_list else f"models:\n{text}"
        separator = "" if not old or old.endswith((b"\n", b"\r")) else "\n"
        line_end = "\r\n" if b"\r\n" in old else "\n"
        new = old + (separator + text).replace("\n", line_end).encode()
    appended = _checked(new, path, manifest, entries, engine)
    _replace(path, old, new)
    return appended


def _new_entries(models: Sequence[Model], manifest: Manifest) -> Iterator[dict[str, Any]]:
    seen = {each for model in manifest.models for each in (model.id, model.name)}
    for model in models:
        if model.id in seen:
            continue
        entry = msgspec.to_builtins(model)
        entry.pop("fingerprint", None)
        if model.engine == manifest.default_engine:
            del entry["engine"]
        if model.type == "llm":
            del entry["type"]
        if not _is_valid(entry):
            # Find the values that are out of bounds, and keep the rest.
            id_ = {"id": model.id}
            entry = {key: value for key, value in entry.items() if _is_valid({**id_, key: value})}
        if "id" in entry:
            seen.add(model.id)
            yield entry


def _is_valid(entry: dict[str, Any]) -> bool:
    """Return whether an entry is valid and is read back unchanged."""
    try:
        text = f"models:\n{_lines(entry, 0)}".encode()
        (model,) = parse_manifest(text, Path()).models
    except (ManifestError, UnicodeEncodeError):
        return False
    return _is_read_as(entry, model)


def _is_read_as(entry: dict[str, Any], model: Model) -> bool:
    read: dict[str, object] = msgspec.to_builtins(model)
    return all(read.get(key) == value for key, value in entry.items())


def _lines(entry: dict[str, Any], indent: int) -> str:
    margin = " " * indent
    first, *rest = (f"{key}: {_flow(value)}\n" for key, value in entry.items())
    return f"{margin}- {first}" + "".join(f"{margin}  {line}" for line in rest)


def _flow(value: object) -> str:
    """Return a value as one line of YAML."""
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        return _dumped(value)
    word = _WORD.fullmatch(value)
    if word is None:
        return _scalar(value)
    return f"'{value}'" if word[1] else value


@lru_cache(maxsize=1024)
def _scalar(text: str) -> str:
    return _dumped(text)


def _dumped(value: object) -> str:
    dumped = yaml.safe_dump(
        [value], default_flow_style=True, width=math.inf, allow_unicode=True, sort_keys=False
    )
    return dumped.rstrip("\n")[1:-1]


def _checked(
    new: bytes, path: Path, old: Manifest, entries: Sequence[dict[str, Any]], engine: str
) -> tuple[Model, ...]:
    """Return the appended models as they are read back."""
    try:
        models = parse_manifest(new, path, engine=engine).models
    except ManifestError:
        models = ()
    kept, appended = models[: len(old.models)], entries_of(models[len(old.models) :])
    if (
        kept != old.models
        or len(appended) != len(entries)
        or not all(map(_is_read_as, entries, appended))
    ):
        raise ManifestError(
            [
                f"{path}: nothing can be appended; `models:` must be the last key of the file, with"
                " an entry `- id: ...` on lines of its own for each model"
            ]
        )
    return appended


def _replace(path: Path, old: bytes | None, new: bytes) -> None:
    # A link stays a link: its target is replaced.
    target = path.resolve()

    def check_unchanged() -> None:
        if (target.read_bytes() if target.exists() else None) != old:
            raise ManifestError([f"{path}: was changed by another program meanwhile; try again"])

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, new, mode=0o644, before_replace=check_unchanged)
    except OSError as error:
        raise ManifestError([f"{path}: cannot be written: {error.strerror or error}"]) from None
