"""The closed enumeration of verdicts, the one classifier of problems, and the error class."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

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


_OUTCOMES: dict[Verdict, Outcome] = {
    Verdict.OK: "passed",
    Verdict.MODEL_NOT_FOUND: "xfailed",
    Verdict.CORRUPTED: "xfailed",
    Verdict.UNSUPPORTED: "xfailed",
    Verdict.INCONCLUSIVE: "skipped",
    Verdict.UNREACHABLE: "error",
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
        self.verdict = verdict or classify(
            text, phase=phase, code=code, exit_status=exit_status
        )


def classify(
    text: str,
    *,
    phase: Phase | None = None,
    code: str | None = None,
    exit_status: int | None = None,
) -> Verdict:
    """The verdict that a problem stands for."""
    raise NotImplementedError
