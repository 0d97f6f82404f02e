"""Models with results on this machine, to export."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pytest_lmstrix.core.types import Model, Result, settings_of
from pytest_lmstrix.export.entries import Exported
from pytest_lmstrix.registry.fold import Fold
from pytest_lmstrix.registry.recommended import recommend
from pytest_lmstrix.system.machine_id import machine_id
from tests.registry.results import a_result

A_DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
QWEN_PATH = "lmstudio-community/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf"


def here(context_length: int = 32_768, verdict: str = "ok", **fields: object) -> Result:
    """Return a result of this machine."""
    setup = {"machine": machine_id(), "engine_version": "0.4.1", "at": A_DAY}
    return a_result(context_length, verdict, **{**setup, **fields})  # type: ignore[arg-type]


def exported(
    context_length: int = 32_768,
    id: str = "qwen3-8b",
    engine: str = "lmstudio",
    file: str | None = None,
    fingerprint: str = f"size:5027783488 path:{QWEN_PATH}",
) -> Exported:
    """Return a verified model."""
    model = Model(id=id, engine=engine, source=file)
    fold = Fold()
    fold.add(
        here(
            context_length, model=id, engine=engine, fingerprint=fingerprint,
            settings=settings_of(model), machine="here",
        )
    )  # fmt: skip
    proof = recommend(id, fold.known(id), machine="here")
    assert proof is not None
    path = Path(file) if file else None
    return Exported(model=model, context_length=context_length, proof=proof, file=path)
