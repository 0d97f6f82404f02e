"""The models to export: those that are verified on this machine with these weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import floor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.types import Model, fingerprint, settings_of
from pytest_lmstrix.export.document import COMMENT_MARK
from pytest_lmstrix.registry.known import VerifyingCheck
from pytest_lmstrix.registry.recommended import Recommendation
from pytest_lmstrix.registry.status import status_of
from pytest_lmstrix.registry.store import Registry
from pytest_lmstrix.system.addresses import URL_ENGINES, remote_host
from pytest_lmstrix.weights.source import LocalSource, parse_source, parts, with_home

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
    def name(self) -> str:
        """Its name in programs: that on its server, the same for all variants."""
        return self.model.served_name or self.model.name

    @property
    def names(self) -> tuple[str, ...]:
        """`name`, and without the tag that Ollama's names have by default."""
        short = self.name.removesuffix(":latest") if self.model.engine == "ollama" else self.name
        return tuple(dict.fromkeys((self.name, short)))

    def is_at(self, address: Any) -> bool:
        """Return whether an entry of a program with this address may be for this model's server.

        Only a server of `url`, or on a host that is one, is known to speak TLS; a variable in
        place of the address may be for any.
        """
        if not isinstance(address, str) or "://" not in address:
            return True
        if self.model.url is not None:
            return _host_and_port(address) == _host_and_port(self.model.url)
        return self.model.engine in URL_ENGINES or not address.lower().startswith("https:")

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


def one_of_each(entries: Sequence[Exported]) -> tuple[list[Exported], list[NotExported]]:
    """Return the models by which programs can tell them apart, and variants of one model.

    Programs have one size for a model, whichever its load settings.
    """
    by_name: dict[tuple[str, str, str | None], list[Exported]] = {}
    for entry in entries:
        key = (entry.model.engine, entry.name, entry.model.url)
        by_name.setdefault(key, []).append(entry)
    found = [each[0] for each in by_name.values() if len(each) == 1]
    others = [
        NotExported(
            model=entry.model.id,
            reason=f"one of {len(each)} verified variants of {entry.name}: select one with -k",
        )
        for each in by_name.values()
        if len(each) > 1
        for entry in each
    ]
    return found, others


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


def _host_and_port(address: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(address)
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return address, None
    name = name if remote_host(name) else "localhost"
    return name, port or (443 if parts.scheme.lower() == "https" else 80)


def _file(model: Model, folder: Path) -> Path | None:
    if model.source is None or not isinstance(parse_source(model.source), LocalSource):
        return None
    return folder / with_home(model.source)


def _differs(file: Path, known: str) -> bool:
    """Return whether the weights are missing, or of another size than the known ones."""
    size = re.match(r"size:(\d+)", known)
    try:
        now = sum(part.stat().st_size for part in parts(file))
    except OSError:
        return True
    return size is not None and int(size[1]) != now
