"""The largest context length that fits, for the model files that a scan finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pytest_lmstrix.commands.fit import read_machine
from pytest_lmstrix.commands.scan import Answer
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.formatting import tokens
from pytest_lmstrix.core.memory import MachineMemory, Needs
from pytest_lmstrix.core.types import LoadSettings, ModelFacts
from pytest_lmstrix.options import Settings
from pytest_lmstrix.plan.memory import MemoryEstimator, largest_context
from pytest_lmstrix.system.machine_id import machine_id

MODEL_SECONDS = 10.0
"""The most that the estimates of one model may take."""


def largest_contexts(
    answers: Iterable[Answer], settings: Settings, *, progress: Callable[[str], None]
) -> Iterator[list[str]]:
    """Yield a row for each language model of llama.cpp: its id, and what fits or why not."""
    files = [
        facts
        for answer in answers
        if answer.engine in ("llamacpp", "llama-server")
        for facts in answer.models
        if facts.type == "llm" and facts.path is not None
    ]
    if not files:
        return
    machine = read_machine(progress)
    estimator = MemoryEstimator(
        registry=settings.registry, folder=settings.models.parent, machine=machine_id()
    )
    for count, facts in enumerate(files, start=1):
        progress(f"{count}/{len(files)} {facts.id}")
        yield [facts.id, _words(facts, machine, estimator)]


def _words(facts: ModelFacts, machine: MachineMemory, estimator: MemoryEstimator) -> str:
    assert facts.path is not None
    path, limit = Path(facts.path), facts.context_limit
    if limit is None:
        return "not estimated: it declares no context length"
    deadline = time.monotonic() + MODEL_SECONDS

    def estimate(size: int) -> Needs:
        left = deadline - time.monotonic()
        return estimator.estimate(path, LoadSettings(), size, timeout_seconds=max(0.0, left))

    try:
        found = largest_context(estimate, machine, limit=limit, known={})
    except (Failure, OSError) as error:
        if time.monotonic() >= deadline:
            return f"not estimated within {MODEL_SECONDS:g} s; `pytest --lmstrix-fit` does"
        return f"not estimated: {error.text if isinstance(error, Failure) else error}"
    if found is None:
        return "fits at no context length"
    return f"{tokens(found)} of {tokens(limit)}"
