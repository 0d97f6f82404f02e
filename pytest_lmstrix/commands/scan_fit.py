"""The largest context length that fits, for the model files that a scan finds."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pytest_lmstrix.commands.fit import read_machine
from pytest_lmstrix.commands.scan import Answer
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.formatting import tokens
from pytest_lmstrix.core.memory import MachineMemory, Needs
from pytest_lmstrix.core.types import LoadSettings, Model, ModelFacts
from pytest_lmstrix.engines.llamacpp.binary import Binary
from pytest_lmstrix.options import Settings
from pytest_lmstrix.plan.memory import MemoryEstimator, largest_context
from pytest_lmstrix.system.machine_id import machine_id

MODEL_SECONDS = 10.0
"""The most that the estimates of one model may take."""
SCAN_SECONDS = 30.0
"""The most that those of all new models may take together."""
_MOST_THREADS = 4


def largest_contexts(
    answers: Iterable[Answer],
    settings: Settings,
    *,
    new: Iterable[Model] | None = None,
    progress: Callable[[str], None],
) -> Iterator[list[str]]:
    """Yield a row for each language model of llama.cpp: its id, and what fits or why not.

    With `new`, of these models alone, and in `SCAN_SECONDS`.
    """
    folder = settings.models.parent
    files = [
        (answer.engine, facts)
        for answer in answers
        if answer.engine in ("llamacpp", "llama-server")
        for facts in answer.models
        if facts.type == "llm" and facts.path is not None
    ]
    deadline = math.inf
    if new is not None:
        sources = {(folder / each.source).resolve() for each in new if each.source is not None}
        files = [each for each in files if Path(each[1].path or "").resolve() in sources]
        deadline = time.monotonic() + SCAN_SECONDS
    if not files:
        return
    own = any(engine == "llama-server" for engine, _ in files)
    program = Binary(settings.llama_server) if own else None
    machine = read_machine(progress, program)
    estimator = MemoryEstimator(
        registry=settings.registry, folder=folder, machine=machine_id(), program=program
    )
    with ThreadPoolExecutor(max(1, min(_MOST_THREADS, os.cpu_count() or 1))) as pool:
        pending = [pool.submit(_words, *each, machine, estimator, deadline) for each in files]
        try:
            for count, ((_, facts), words) in enumerate(zip(files, pending, strict=True), start=1):
                progress(f"{count}/{len(files)} {facts.id}")
                yield [facts.id, words.result()]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _words(
    engine: str,
    facts: ModelFacts,
    machine: MachineMemory,
    estimator: MemoryEstimator,
    deadline: float,
) -> str:
    assert facts.path is not None
    path, limit = Path(facts.path), facts.context_limit
    if limit is None:
        return "not estimated: it declares no context length"
    own_deadline = time.monotonic() + MODEL_SECONDS
    most = MODEL_SECONDS if own_deadline < deadline else SCAN_SECONDS
    deadline = min(deadline, own_deadline)

    def estimate(size: int) -> Needs:
        left = deadline - time.monotonic()
        return estimator.estimate(
            path, LoadSettings(), size, engine=engine, timeout_seconds=max(0.0, left)
        )

    try:
        found = largest_context(estimate, machine, limit=limit, known={})
    except (Failure, OSError) as error:
        if time.monotonic() >= deadline:
            return f"not estimated within {most:g} s; `pytest --lmstrix-fit` does"
        return f"not estimated: {error.text if isinstance(error, Failure) else error}"
    if found is None:
        return "fits at no context length"
    return f"{tokens(found)} of {tokens(limit)}"
