"""LM Studio's own estimate of the memory that a load will take. Pure.

Source: `estimateModelUsage` in lmstudio-js, which is experimental; older versions do not answer it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.measured import MAX_SIZE_BYTES
from pytest_lmstrix.core.memory import DeviceNeed, Needs
from pytest_lmstrix.core.verdicts import Verdict

_Bytes = Annotated[float, Meta(ge=0, le=MAX_SIZE_BYTES)]


class ModelUsage(Struct, frozen=True, kw_only=True):
    """The memory of a load, and whether LM Studio would start it."""

    needs: Needs
    """Rows for the GPUs together and for the host."""
    fits: bool
    """Whether LM Studio's guardrails, as the user has set them, let it load."""


class _Memory(Struct, frozen=True, kw_only=True, rename="camel"):
    model_vram_bytes: _Bytes
    context_vram_bytes: _Bytes
    total_vram_bytes: _Bytes
    model_bytes: _Bytes
    """On the GPUs and the host."""
    context_bytes: _Bytes
    total_bytes: _Bytes


class _Answer(Struct, frozen=True, kw_only=True, rename="camel"):
    memory: _Memory
    passes_guardrails: bool


def read_usage(answer: object) -> ModelUsage:
    """Read the answer of `estimateModelUsage`.

    Raises:
        Failure: It is not of the form that is known.
    """
    try:
        read = msgspec.convert(answer, _Answer)
    except msgspec.ValidationError as error:
        text = f"LM Studio's estimate of the memory cannot be read: {error}"
        raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="load") from error
    memory = read.memory
    gpu = (memory.model_vram_bytes, memory.context_vram_bytes, memory.total_vram_bytes)
    total = (memory.model_bytes, memory.context_bytes, memory.total_bytes)
    host = [max(0.0, whole - part) for whole, part in zip(total, gpu, strict=True)]
    rows = (_need("GPU", *gpu), _need("Host", *host))
    needs = tuple(row for row in rows if row.total_bytes)
    return ModelUsage(needs=needs or rows[1:], fits=read.passes_guardrails)


def _need(name: str, model: float, context: float, total: float) -> DeviceNeed:
    return DeviceNeed(
        name=name,
        weights_bytes=int(model),
        kv_cache_bytes=int(context),
        compute_bytes=max(0, int(total) - int(model) - int(context)),
        total_bytes=int(total),
    )
