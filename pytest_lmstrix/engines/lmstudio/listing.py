"""LM Studio's listing of models as facts. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from pytest_lmstrix.core.types import ModelFacts, ModelType, fingerprint
from pytest_lmstrix.engines.lmstudio.settings import Runtime, runtime_of

_log = logging.getLogger(__name__)

_NOT_TESTED = ("drafter", "imageGen", "transcription", "tts")
"""Kinds of models that answer no prompts."""


class _Quantization(Struct):
    name: str | None = None


class _Listed(Struct, rename="camel"):
    model_key: str
    type: ModelType
    format: str | None = None
    path: str | None = None
    size_bytes: int | None = None
    max_context_length: int | None = None
    architecture: str | None = None
    quantization: _Quantization | None = None
    vision: bool = False
    trained_for_tool_use: bool = False
    variants: tuple[str, ...] | None = None
    selected_variant: str | None = None
    device_identifier: str | None = None


class ListedModel(Struct, frozen=True, kw_only=True):
    """A model of the listing, or a variant of one."""

    facts: ModelFacts
    runtime: Runtime = "llama"
    device: str | UnsetType | None = UNSET
    """The linked device that has it; `None` where a linked device also has one of this name."""


def read_listing(
    listing: Iterable[object], variants_of: Callable[[str], Iterable[object]]
) -> list[ListedModel]:
    """Return the models of a raw listing and their variants; invalid entries are left out.

    Of several devices that have a model, this one takes precedence. `variants_of` returns the raw
    listing of a model's variants.
    """
    found: dict[str, _Listed] = {}
    shadowed: set[str] = set()
    for listed in _valid(listing):
        known = found.get(listed.model_key)
        if known is not None:
            shadowed.add(listed.model_key)
        if known is None or (known.device_identifier and not listed.device_identifier):
            found[listed.model_key] = listed
    entries: list[ListedModel] = []
    for key, listed in found.items():
        entry = _entry(listed, is_shadowed=key in shadowed)
        entries.append(entry)
        if listed.variants:
            entries += _variants(listed, entry, variants_of)
    return entries


def _valid(listing: Iterable[object]) -> Iterable[_Listed]:
    for raw in listing:
        kind = raw.get("type") if isinstance(raw, dict) else None
        if kind in _NOT_TESTED:
            continue
        try:
            yield msgspec.convert(raw, _Listed)
        except msgspec.ValidationError as error:
            key = raw.get("modelKey") if isinstance(raw, dict) else raw
            _log.warning("left out %r, which LM Studio lists: %s", key, error)


def _entry(listed: _Listed, *, is_shadowed: bool = False) -> ListedModel:
    has = {"vision": listed.vision, "tools": listed.trained_for_tool_use}
    device = listed.device_identifier
    weights = fingerprint(
        sha256=None, size_bytes=listed.size_bytes, path=listed.selected_variant or listed.path
    )
    facts = ModelFacts(
        id=listed.model_key,
        type=listed.type,
        context_limit=listed.max_context_length,
        size_bytes=listed.size_bytes,
        path=listed.path,
        architecture=listed.architecture,
        quantization=listed.quantization.name if listed.quantization else None,
        capabilities=tuple(name for name, there in has.items() if there),
        fingerprint=f"{weights or ''} device:{device}".strip() if device else weights,
    )
    return ListedModel(
        facts=facts,
        runtime=runtime_of(listed.format),
        device=device if device or is_shadowed else UNSET,
    )


def _variants(
    base: _Listed, entry: ListedModel, variants_of: Callable[[str], Iterable[object]]
) -> Iterable[ListedModel]:
    detailed = {each.model_key: each for each in _valid(variants_of(base.model_key))}
    for key in base.variants or ():
        if key == base.model_key:
            continue
        if key == base.selected_variant:
            # The model's own name stands for it too, until another one is selected.
            yield replace(entry, facts=replace(entry.facts, id=key))
        elif key in detailed:
            variant = detailed[key]
            variant.selected_variant = key
            variant.device_identifier = base.device_identifier
            yield replace(_entry(variant), device=entry.device)
        else:
            yield replace(entry, facts=_unsized(entry.facts, key))


def _unsized(facts: ModelFacts, key: str) -> ModelFacts:
    return replace(
        facts,
        id=key,
        size_bytes=None,
        quantization=None,
        fingerprint=fingerprint(sha256=None, size_bytes=None, path=key),
    )
