"""The closed enumeration of verdicts, the one classifier of problems, and the error class."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

from pytest_lmstrix import patterns
from pytest_lmstrix.text import clean

Outcome = Literal["passed", "failed", "xfailed", "skipped", "error"]
Phase = Literal["connect", "load", "predict", "unload"]


class Verdict(StrEnum):
    """What a check found about a model at a context length."""

    OK = "ok"
    WRONG_ANSWER = "wrong_answer"
    EMPTY_REPLY = "empty_reply"
    NO_ANSWER_IN_BUDGET = "no_answer_in_budget"
    RECALL_FAILED = "recall_failed"
    PROMPT_TRUNCATED = "prompt_truncated"
    CONTEXT_NOT_GRANTED = "context_not_granted"
    CONTEXT_TOO_LARGE = "context_too_large"
    OUT_OF_MEMORY = "out_of_memory"
    GUARDRAIL_REFUSED = "guardrail_refused"
    MODEL_NOT_FOUND = "model_not_found"
    CORRUPTED = "corrupted"
    UNSUPPORTED = "unsupported"
    INCONCLUSIVE = "inconclusive"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    ENGINE_ERROR = "engine_error"

    @property
    def outcome(self) -> Outcome:
        """How pytest reports it."""
        return _OUTCOMES.get(self, "failed")

    @property
    def retries(self) -> int:
        """How often the same case is tried again at once before this verdict stands."""
        return 1 if self in (Verdict.CRASHED, Verdict.TIMEOUT) else 0

    @property
    def goes_down(self) -> bool:
        """Whether a smaller context length may do better."""
        return self.outcome == "failed" and self not in (
            Verdict.TIMEOUT,
            Verdict.NO_ANSWER_IN_BUDGET,
        )

    @property
    def advice(self) -> str:
        """What a person can do about it, in one line; empty when there is nothing to do."""
        return _ADVICE.get(self, "")


_OUTCOMES: dict[Verdict, Outcome] = {
    Verdict.OK: "passed",
    Verdict.MODEL_NOT_FOUND: "xfailed",
    Verdict.CORRUPTED: "xfailed",
    Verdict.UNSUPPORTED: "xfailed",
    Verdict.INCONCLUSIVE: "skipped",
    Verdict.UNREACHABLE: "error",
}


MESSAGE_LIMIT = 2_000
"""Characters of an engine's words in a message for a person."""

_ADVICE: dict[Verdict, str] = {
    Verdict.NO_ANSWER_IN_BUDGET: "Raise the token budget, or set `prompts: completion`.",
    Verdict.PROMPT_TRUNCATED: "The engine cut the prompt: check its context overflow policy.",
    Verdict.CONTEXT_NOT_GRANTED: "Ask for a smaller context, or switch off the engine's fitting.",
    Verdict.CONTEXT_TOO_LARGE: "Ask for a smaller context, or send a shorter prompt.",
    Verdict.OUT_OF_MEMORY: "Try a smaller context or a lighter KV cache (`load: {kv_cache_type: "
    "q8_0}`), or free memory.",
    Verdict.GUARDRAIL_REFUSED: "Try a smaller context, free memory, or relax the model loading "
    "guardrails in the engine's settings.",
    Verdict.MODEL_NOT_FOUND: "See where it should be, download it again, or take it out of the "
    "manifest; `--lmstrix-scan` shows what there is.",
    Verdict.CORRUPTED: "Download the model again; if its file is whole, reload it in the engine.",
    Verdict.UNSUPPORTED: "Update the engine or install the runtime that this model needs.",
    Verdict.INCONCLUSIVE: "This model is too weak for this probe; try another check.",
    Verdict.CRASHED: "See the engine's log; update the engine, or try other load settings.",
    Verdict.TIMEOUT: "Raise `--lmstrix-load-timeout` or `--lmstrix-reply-timeout`, or see what "
    "else keeps the machine busy.",
    Verdict.UNREACHABLE: "Start the server, and check `--lmstrix-host` and the network.",
    Verdict.ENGINE_ERROR: "See the engine's log.",
}


class Failure(Exception):
    """A verdict other than `ok`, with the engine's own words.

    Engines raise it with what they know (`phase`, structured `code`, `exit_status`) and leave the
    verdict to `classify`; checks raise it with their verdict.
    """

    def __init__(
        self,
        text: str,
        *,
        verdict: Verdict | None = None,
        phase: Phase | None = None,
        code: str | None = None,
        exit_status: int | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.phase = phase
        self.code = code
        self.exit_status = exit_status
        self.retried = False
        """Whether it is what another try ended with."""
        self.verdict = verdict or classify(text, phase=phase, code=code, exit_status=exit_status)

    def __str__(self) -> str:
        return self.message

    @property
    def message(self) -> str:
        """For a person: the verdict, the engine's own words made harmless, and advice."""
        words = clean(self.text.strip(), MESSAGE_LIMIT)
        if self.exit_status is not None:
            words = f"{words} (exit status {self.exit_status})".lstrip()
        lines = [f"{self.verdict}: {words}" if words else str(self.verdict), self.verdict.advice]
        return "\n".join(line for line in lines if line)


def classify(
    text: str,
    *,
    phase: Phase | None = None,
    code: str | None = None,
    exit_status: int | None = None,
) -> Verdict:
    """The verdict that a problem stands for.

    A structured code decides before the text, which it may also be found in; the text before the
    exit status of the engine's process; both before vague hints in the text. `exit_status` is as
    `subprocess` gives it (negative: a POSIX signal), as a shell or as Windows does. Never raises.
    """
    words = _words(f"{code or ''}\n{text}")
    verdict = (
        _of_code(words)
        or _first_match(patterns.RULES, words)
        or _of_exit_status(exit_status, phase)
        or _first_match(patterns.HINTS, words)
        or Verdict.ENGINE_ERROR
    )
    # Before there is a connection, no model can be at fault.
    if phase == "connect":
        return Verdict.UNREACHABLE
    # What answers was found: now it has gone.
    if phase == "predict" and verdict is Verdict.MODEL_NOT_FOUND:
        return Verdict.CRASHED
    return verdict


_FLAGS = re.IGNORECASE | re.MULTILINE
_HEAD, _TAIL = 16_000, 64_000
_NO_MEMORY = (0xC0000017, 0xC000012D)
_WINDOWS_ERROR = 0xC0000000
_SHELL_SIGNALS = range(128 + 1, 128 + 65)
_CODE = re.compile(rf"\b(?:{'|'.join(map(re.escape, patterns.CODES))})\b", re.IGNORECASE)
_CODES = {code.lower(): Verdict(verdict) for code, verdict in patterns.CODES.items()}


def _words(text: str) -> str:
    """`text` without escapes and noise; of a very long one the start and the end."""
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    # A log quoted in JSON: its escaped newlines would hide where lines and words begin.
    text = re.sub(r"\\[nrt]", "\n", clean(text, len(text)))
    for noise in patterns.NOISE:
        text = re.sub(noise, "", text, flags=_FLAGS)
    return text


def _of_code(words: str) -> Verdict | None:
    found = _CODE.search(words)
    return _CODES[found.group().lower()] if found else None


def _first_match(rules: Iterable[tuple[str, str]], words: str) -> Verdict | None:
    for verdict, pattern in rules:
        if re.search(pattern, words, _FLAGS):
            return Verdict(verdict)
    return None


def _of_exit_status(status: int | None, phase: Phase | None) -> Verdict | None:
    """What a process died of; `None` when it ended in an orderly way, or cannot be told.

    Source: Microsoft's list of NTSTATUS values (0xC0000017 STATUS_NO_MEMORY, 0xC000012D
    STATUS_COMMITMENT_LIMIT), signed or not, of 32 or 64 bits; POSIX signals, 128 + n in a shell.
    """
    if status is None:
        return None
    # Rounded to a JavaScript number, a 64-bit value keeps its family and no more.
    if status & 0xFFFFFFFF in _NO_MEMORY:
        return Verdict.OUT_OF_MEMORY
    if status < 0 or status >= _WINDOWS_ERROR or status in _SHELL_SIGNALS:
        return Verdict.CRASHED
    return Verdict.CRASHED if phase == "predict" else None
