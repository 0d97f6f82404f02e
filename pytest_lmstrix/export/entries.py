"""The models to export: those that are verified on this machine with these weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import floor
from pathlib import Path

from msgspec import Struct

from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.types import Model, fingerprint, settings_of
from pytest_lmstrix.export.document import COMMENT_MARK
from pytest_lmstrix.registry.known import VerifyingCheck
from pytest_lmstrix.registry.recommended import Recommendation
from pytest_lmstrix.registry.status import status_of
from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.weights.source import LocalSource, parse_source, parts

MOST_OUTPUT = 4096
"""Tokens kept for the answer by programs that split the window."""


class Exported(Struct, frozen=True, kw_only=True):
    """A model and the context length to set for it."""

    model: Model
    context_length: int
    """Tokens: the verified ones, less the margin."""
    proof: Recommendation
    file: Path | None = None
    """Its weights, where they are a file of this machine."""

    @property
    def output(self) -> int:
        """The part of the window for the answer."""
        return min(MOST_OUTPUT, self.context_length // 4)

    @property
    def input(self) -> int:
        """The part of the window for the prompt."""
        return self.context_length - self.output

    @property
    def note(self) -> str:
        """Where the value comes from, as the text of a comment."""
        proof = self.proof
        version = f" {proof.engine_version}" if proof.engine_version else ""
        settings = f", load settings {proof.settings}" if proof.settings else ""
        return COMMENT_MARK + one_line(
            f"{proof.context_length} tokens passed {proof.check} on {proof.at:%Y-%m-%d},"
            f" {proof.engine}{version}{settings}"
        )


class NotExported(Struct, frozen=True, kw_only=True):
    """A model without a value, and the reason."""

    model: str
    reason: str


def select(
    models: Sequence[Model],
    registry: Registry,
    *,
    folder: Path,
    check: VerifyingCheck | None = None,
    margin: float = 0.0,
) -> tuple[list[Exported], list[NotExported]]:
    """Return the models verified on this machine, and the others.

    `check` limits the proof to one check; `margin` is the percentage left below the verified
    size. Sources of models are relative to `folder`.

    Raises:
        RegistryError: The registry cannot be read.
    """
    found: list[Exported] = []
    others: list[NotExported] = []
    for model in models:
        proof = _proof(model, registry, check)
        file = _file(model, folder)
        reason = _obstacle(model, registry, check, proof, file)
        if proof is None or reason:
            others.append(NotExported(model=model.id, reason=reason))
            continue
        length = max(1, floor(proof.context_length * (100 - margin) / 100))
        found.append(Exported(model=model, context_length=length, proof=proof, file=file))
    return found, others


def _proof(model: Model, registry: Registry, check: VerifyingCheck | None) -> Recommendation | None:
    settings = settings_of(model)
    proof = registry.recommended(model.id, check=check, engine=model.engine, settings=settings)
    if proof and model.sha256 and proof.fingerprint.startswith("sha256:"):
        weights = fingerprint(sha256=model.sha256, size_bytes=None, path=None)
        proof = registry.recommended(
            model.id, check=check, engine=model.engine, settings=settings, fingerprint=weights
        )
    return proof


def _obstacle(
    model: Model,
    registry: Registry,
    check: VerifyingCheck | None,
    proof: Recommendation | None,
    file: Path | None,
) -> str:
    """Return why there is no value; an empty text if there is one."""
    if model.type == "embedding":
        return "an embedding model, whose sizes are not tested"
    status = status_of(registry, model)
    if proof is not None:
        if file is not None and _differs(file, proof.fingerprint):
            return "its file is missing or has changed since the last test"
        return ""
    if status.status in ("untested", "missing", "corrupted"):
        return f"{status.status}, by its results with these weights and load settings"
    if status.verified_context is None:
        worst = f" ({status.smallest_bad_verdict})" if status.smallest_bad_verdict else ""
        return f"no verified size{worst}"
    if check == "deep" and status.verified_check != "deep":
        return f"verified by {status.verified_check}, not by deep"
    if status.fingerprint is None:
        return "verified, but its weights are unknown"
    return "not verified on this machine"


def _file(model: Model, folder: Path) -> Path | None:
    if model.source is None or not isinstance(parse_source(model.source), LocalSource):
        return None
    return folder / Path(model.source).expanduser()


def _differs(file: Path, known: str) -> bool:
    """Return whether the weights are missing, or of another size than the known ones."""
    size = re.match(r"size:(\d+)", known)
    try:
        now = sum(part.stat().st_size for part in parts(file))
    except OSError:
        return True
    return size is not None and int(size[1]) != now
