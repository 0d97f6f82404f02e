"""Why a llama.cpp server has ended or is silent, by its exit status and its log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Phase, Verdict
from pytest_lmstrix.engines.llamacpp.child import REFUSED
from pytest_lmstrix.system.child_process import describe_exit

DEATH_SECONDS = 5.0
"""Time limit to detect the exit of a process whose connection broke."""
_ERROR_LINES = 12
_LOG_PREFIX = re.compile(r"^[\d.]+ (?P<level>[A-Z]) ")
_TELLING = re.compile(r"error|assert|fail|terminate|what\(\)|unable|insufficient|denied", re.I)
_REFUSED_ARGUMENT = re.compile(r"^error(?: while handling argument|: invalid argument).*", re.M)
_EMPTY_WORDS = re.compile(
    r"send_error|exiting due to model loading error"
    r"|failed to (load|create.context with) model\b(?! from)"
)
"""Lines without a cause of failure; the reason of a refused request is in its answer."""


class ServerProcess(Protocol):
    """What runs the server: see `Child`."""

    peak_memory_bytes: int | None

    @property
    def killed_for_memory(self) -> bool: ...
    def activity(self) -> tuple[int, ...]: ...
    def wait(self, timeout_seconds: float, /) -> int | None: ...
    def log(self) -> list[str]: ...
    def forget_log(self) -> None: ...
    def end(self) -> list[int]: ...


def silence(seconds: float | None, doing: str, phase: Phase) -> Failure:
    text = f"timed out: no progress for {seconds:g} s while {doing}"
    return Failure(text, verdict=Verdict.TIMEOUT, phase=phase)


def death(child: ServerProcess, path: Path, phase: Phase) -> Failure:
    """Explain why the server process of the model in `path` has exited."""
    status = child.wait(DEATH_SECONDS)
    reason = "\n".join(error_lines(child.log())).replace(str(path), "the model file")
    if status == REFUSED and (argument := _REFUSED_ARGUMENT.search(reason)):
        text = f"llama-server refuses an argument of the settings: {argument.group()}"
        return Failure(text, verdict=Verdict.HOST_TROUBLE, phase=phase, final=True)
    if status == REFUSED:
        return Failure.from_engine(
            reason or "llama.cpp refused to load without a reason", phase=phase
        )
    if status is None:
        return Failure.from_engine(
            f"llama.cpp closed its output but runs on\n{reason}", phase=phase
        )
    text = f"llama.cpp ended: {describe_exit(status)}\n{reason}".rstrip()
    if child.killed_for_memory:
        text += "\nmeanwhile the system killed a process for lack of memory"
        return Failure(text, verdict=Verdict.OUT_OF_MEMORY, phase=phase, exit_status=status)
    return Failure.from_engine(text, phase=phase, exit_status=status)


def error_lines(log: Sequence[str]) -> list[str]:
    """Return the lines with an error, without timestamps, or the last foreign lines."""
    errors, foreign = [], []
    for line in log:
        prefix = _LOG_PREFIX.match(line)
        words = line[prefix.end() :] if prefix else line
        if not prefix:
            foreign.append(line)
        wrong = prefix["level"] == "E" if prefix else _TELLING.search(line)
        if wrong and not _EMPTY_WORDS.search(words):
            errors.append(words)
    return list(dict.fromkeys(errors))[:_ERROR_LINES] or foreign[-_ERROR_LINES:]
