"""Variants of a model: one for each combination of the load settings that are lists."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from msgspec.structs import replace

from pytest_lmstrix.core.types import Model
from pytest_lmstrix.manifest.schema import LOAD_LISTS

MOST_VARIANTS = 64
"""Of one model."""
_WORDS = {
    "gpu_layers": "gpu", "gpu_offload": "offload", "batch_size": "batch", "threads": "threads",
    "n_cpu_moe": "cpumoe", "parallel": "parallel",
}  # fmt: skip
"""Setting -> what precedes its value in the id of a variant."""


def combinations(fields: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the fields of each variant; `fields` themselves if no load setting is a tuple.

    An embedding model is never loaded, and so has no variants.

    Raises:
        ValueError: There are too many.
    """
    load = fields["load"]
    axes = {
        name: values
        for name, values in load.items()
        if name not in LOAD_LISTS and isinstance(values, tuple)
    }
    fixed = {name: value for name, value in load.items() if name not in axes}
    if not axes or fields.get("type") == "embedding":
        yield {**fields, "load": fixed}
        return
    count = math.prod(map(len, axes.values()))
    if count > MOST_VARIANTS:
        raise ValueError(f"must make at most {MOST_VARIANTS} variants of a model, got {count:,}")
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        words = (_word(name, value) for name, value in chosen.items())
        yield {
            **fields,
            "id": "+".join([fields["id"], *words]),
            "variant_of": fields["id"],
            "load": {**fixed, **chosen},
        }


def entries_of(models: Iterable[Model]) -> tuple[Model, ...]:
    """Return one model for each entry of the manifest, under the id of the entry."""
    found: dict[str, Model] = {}
    for model in models:
        found.setdefault(model.name, replace(model, id=model.name, variant_of=None))
    return tuple(found.values())


def _word(name: str, value: object) -> str:
    if name == "flash_attention":
        return "flash" if value else "noflash"
    return f"{_WORDS.get(name, '')}{value}"
