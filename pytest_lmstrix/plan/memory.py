"""The memory that models need at a context length, before any load: estimated once, then cached."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from msgspec import structs

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.memory import MachineMemory, Needs, total_of
from pytest_lmstrix.core.types import LoadSettings, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp.binary import Binary
from pytest_lmstrix.plan.estimates import EstimateCache, estimate_key, files_key
from pytest_lmstrix.plan.plan import PlannedModel
from pytest_lmstrix.weights.fetch import header_path, is_cached
from pytest_lmstrix.weights.source import LocalSource, parse_source, parts, why_missing, with_home

CONTEXT_STEP = 256
"""llama.cpp rounds context lengths up to this."""
_MOST_TRIES = 10


class MemoryEstimator:
    """Estimates the memory of loads with llama.cpp; safe for use by several threads."""

    def __init__(
        self, *, registry: Path, folder: Path, machine: str, program: Binary | None = None
    ) -> None:
        """`registry` is the file of the results, `folder` that of the manifest.

        `program` estimates the models of the engine `llama-server`.
        """
        self._program = program
        self._cache = EstimateCache(registry)
        self._folder = folder
        self._machine = machine
        self._lock = threading.Lock()
        self._places: Mapping[str, Path] | None = None
        self._digests: dict[str, str] = {}
        """Files of a model, as `files_key` -> the hash of their headers."""

    def file(self, model: Model, *, fetch: bool) -> Path:
        """Return the file of a model, or one with its header alone.

        The header of remote weights is fetched only if `fetch`; the weights never are.

        Raises:
            Failure: It is not available.
        """
        if model.source is None:
            return self._listed(model.name)
        source = parse_source(model.source)
        if isinstance(source, LocalSource):
            path = self._folder / with_home(source.path)
            if not path.is_file():
                raise _not_found(f"{why_missing(path)}: {path}")
            return path
        cached = is_cached(model.source, sha256=model.sha256, base_dir=self._folder)
        if cached is not None:
            return cached
        if fetch:
            from pytest_lmstrix.weights.remote_header import fetch_header

            return fetch_header(model.source)
        header = header_path(model.source)
        if not header.is_file():
            raise _not_found(f"{model.source}: neither the file nor its header is on this machine")
        return header

    def estimate(
        self,
        path: Path,
        load: LoadSettings,
        context_length: int,
        *,
        engine: str = "llamacpp",
        timeout_seconds: float | None = None,
    ) -> Needs:
        """Return the memory of a load of the model in `path`, from the cache or by a dry run.

        Raises:
            Failure: llama.cpp is not installed or refuses the model, or the file is damaged.
        """
        program = self._program if engine == "llama-server" else None
        key = self._key(path, load, context_length, program)
        with self._lock:
            known = self._cache.get(key)
        if known is not None:
            return known
        from pytest_lmstrix.engines.llamacpp import dry_run

        timeout = dry_run.TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
        try:
            needs = dry_run.estimate(
                path, load, context_length, program=program, timeout_seconds=timeout
            )
        except OSError as error:
            raise _not_estimated(str(error)) from error
        with self._lock, suppress(OSError):  # the cache only saves time
            self._cache.add(key, needs, headers=self._digests)
        return needs

    def cached_bytes(self, planned: PlannedModel) -> int | None:
        """Return the cached estimate of the largest case of a model of the embedded llama.cpp."""
        model, sizes = planned.model, planned.context_lengths
        if model.engine != "llamacpp" or not sizes:
            return None
        return self.cached_bytes_at(model, sizes[-1])

    def cached_bytes_at(self, model: Model, context_length: int) -> int | None:
        """Return the cached estimate of a model whose file is on this machine."""
        if not self._cache:
            return None
        try:
            key = self._key(self.file(model, fetch=False), model.load, context_length, None)
        except (Failure, OSError, ValueError):
            return None
        needs = self._cache.get(key)
        return None if needs is None else total_of(needs)

    def _key(
        self, path: Path, load: LoadSettings, context_length: int, program: Binary | None
    ) -> str:
        if program is None:
            require_llamacpp()
            from importlib.metadata import version as version_of

            version = version_of("xllamacpp")
        else:
            version = f"llama-server {program.version}"
        return estimate_key(
            header=self._digest(path),
            # The share that LM Studio offloads, and threads, mean nothing to a dry run.
            load=structs.replace(
                load, threads=None, gpu_offload=None, kv_cache_type=load.kv_cache_type or "f16"
            ),
            context_length=context_length,
            engine_version=version,
            machine=self._machine,
        )

    def _digest(self, path: Path) -> str:
        from pytest_lmstrix.weights.header import header_digest

        try:
            files = files_key(part for part in parts(path) if part.is_file())
            with self._lock:
                digest = self._digests.get(files) or self._cache.header(files)
            digest = digest or header_digest(path)
        except (OSError, ValueError) as error:
            text = f"damaged GGUF header: {error}"
            raise Failure(text, verdict=Verdict.CORRUPTED, phase="load") from error
        with self._lock:
            self._digests[files] = digest
        return digest

    def _listed(self, model_id: str) -> Path:
        from pytest_lmstrix.weights import places

        with self._lock:
            if self._places is None:
                self._places = places.find(places.usual_places())
        if model_id not in self._places:
            raise _not_found("no file of that name in the usual folders")
        return self._places[model_id]


def require_llamacpp() -> None:
    """Raises:
    Failure: llama.cpp is not installed.
    """
    if find_spec("xllamacpp") is None:
        raise _not_estimated("needs llama.cpp: pip install 'pytest-lmstrix[llamacpp]'")


def largest_context(
    estimate: Callable[[int], Needs],
    machine: MachineMemory,
    *,
    limit: int,
    known: Mapping[int, Needs],
) -> int | None:
    """Return the largest context length up to `limit` that fits, in few estimates; tokens.

    `known` holds the estimates that are there already. Below `limit` it is a multiple of
    `CONTEXT_STEP`, or of `known`. `None` if not even the smallest fits.

    Raises:
        Failure: An estimate failed.
    """
    spare = {size: machine.spare_bytes(needs) for size, needs in known.items()}
    return largest_size(lambda size: machine.spare_bytes(estimate(size)), limit=limit, known=spare)


def largest_size(
    spare_bytes: Callable[[int], int], *, limit: int, known: Mapping[int, int]
) -> int | None:
    """Return what `largest_context` does, by the memory that a size leaves free.

    Raises:
        Failure: An estimate failed.
    """
    spare = {size: left for size, left in known.items() if size <= limit}

    def fits(size: int) -> bool:
        if size not in spare:
            spare[size] = spare_bytes(size)
        return spare[size] >= 0

    if fits(limit):
        return limit
    low = max((size for size in spare if spare[size] >= 0), default=min(CONTEXT_STEP, limit))
    if not fits(low):
        return None
    high = min(size for size in spare if spare[size] < 0 and size > low)
    for attempt in range(_MOST_TRIES):
        step_above = (low // CONTEXT_STEP + 1) * CONTEXT_STEP
        if step_above >= high:
            break
        # Memory grows nearly linearly with the context; where it does not, bisect.
        share = spare[low] / (spare[low] - spare[high]) if attempt < _MOST_TRIES // 2 else 0.5
        guess = int(low + share * (high - low)) // CONTEXT_STEP * CONTEXT_STEP
        guess = max(step_above, min(guess, (high - 1) // CONTEXT_STEP * CONTEXT_STEP))
        low, high = (guess, high) if fits(guess) else (low, guess)
    return low


def _not_found(text: str) -> Failure:
    return Failure(text, verdict=Verdict.MODEL_NOT_FOUND, phase="load")


def _not_estimated(text: str) -> Failure:
    return Failure(text, verdict=Verdict.ENGINE_ERROR, phase="load")
