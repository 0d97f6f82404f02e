"""The verdicts, and the table of their traits."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

Outcome = Literal["passed", "failed", "xfailed", "skipped", "error"]
Phase = Literal["connect", "load", "predict", "unload"]
Subject = Literal["size", "model", "host", "test"]
Evidence = Literal["good", "bad", "open", "model", "unclear", "none"]
Status = Literal["untested", "completed", "failed", "missing", "corrupted"]
Family = Literal["ok", "answer", "room", "unusable", "unclear", "engine"]


class Verdict(StrEnum):
    """The result of a check of a model at a context length."""

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
    TEMPLATE_ERROR = "template_error"
    INCONCLUSIVE = "inconclusive"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    HOST_TROUBLE = "host_trouble"
    ENGINE_ERROR = "engine_error"

    @property
    def outcome(self) -> Outcome:
        """Outcome in pytest."""
        return TRAITS[self].outcome

    @property
    def subject(self) -> Subject:
        """What it is about; only `size` and `model` count against a model."""
        return TRAITS[self].subject

    @property
    def evidence(self) -> Evidence:
        """Its effect on the status of its size; see `TRAITS`."""
        return TRAITS[self].evidence

    @property
    def retries(self) -> int:
        """Number of immediate retries before the verdict counts."""
        return TRAITS[self].retries

    @property
    def smaller_may_help(self) -> bool:
        """Whether a smaller context length may pass."""
        return TRAITS[self].smaller_may_help

    @property
    def advice(self) -> str:
        """Remedy in one line that fits any result, if any; see `checks.advice`."""
        return TRAITS[self].advice


class Traits(NamedTuple):
    """One row of `TRAITS`.

    `evidence` decides how the registry counts a verdict:

    - `good`: the size works.
    - `bad`: the size does not work; it bars the sizes above it from being verified.
    - `open`: failed, but a run with more time or a larger budget may pass; bars larger sizes too.
    - `model`: about the weights, whatever the size.
    - `unclear`: the probe was inconclusive.
    - `none`: not a verdict on the model; the status ignores the line.
    """

    outcome: Outcome
    subject: Subject
    evidence: Evidence
    letter: str
    """Letter in the map of the report."""
    family: Family
    """Colour in the map of the report."""
    advice: str = ""
    retries: int = 0
    smaller_may_help: bool = False
    status: Status = "failed"
    """Status of a model with this newest verdict, unless its sizes decide."""


TRAITS: dict[Verdict, Traits] = {
    Verdict.OK: Traits("passed", "size", "good", "✓", "ok", status="completed"),
    Verdict.WRONG_ANSWER: Traits(
        "failed", "size", "bad", "W", "answer", smaller_may_help=True,
    ),
    Verdict.EMPTY_REPLY: Traits(
        "failed", "size", "bad", "E", "answer", smaller_may_help=True,
    ),
    Verdict.NO_ANSWER_IN_BUDGET: Traits(
        "failed", "model", "open", "B", "answer",
        "Raise `answer_tokens` of the model, or switch off its thinking.",
    ),
    Verdict.RECALL_FAILED: Traits(
        "failed", "size", "bad", "R", "answer", smaller_may_help=True,
    ),
    Verdict.PROMPT_TRUNCATED: Traits(
        "failed", "size", "bad", "P", "answer",
        "The engine cut the prompt: check its context overflow policy.",
        smaller_may_help=True,
    ),
    Verdict.CONTEXT_NOT_GRANTED: Traits(
        "failed", "size", "bad", "G", "room",
        "Ask for a smaller context, or switch off the engine's fitting.",
        smaller_may_help=True,
    ),
    Verdict.CONTEXT_TOO_LARGE: Traits(
        "failed", "size", "bad", "L", "room",
        "Ask for a smaller context, or send a shorter prompt.",
        smaller_may_help=True,
    ),
    Verdict.OUT_OF_MEMORY: Traits(
        "failed", "size", "bad", "M", "room",
        "Try a smaller context or a lighter KV cache (`load: {kv_cache_type: q8_0}`), or free"
        " memory.",
        smaller_may_help=True,
    ),
    Verdict.GUARDRAIL_REFUSED: Traits(
        "failed", "size", "bad", "U", "room",
        "Try a smaller context, free memory, or relax the model loading guardrails in the"
        " engine's settings.",
        smaller_may_help=True,
    ),
    Verdict.MODEL_NOT_FOUND: Traits(
        "xfailed", "model", "model", "?", "unusable",
        "See where it should be, download it again, or take it out of the manifest;"
        " `--lmstrix-scan` shows what there is.",
        status="missing",
    ),
    Verdict.CORRUPTED: Traits(
        "xfailed", "model", "model", "C", "unusable",
        "Download the model again; if its file is whole, reload it in the engine.",
        status="corrupted",
    ),
    Verdict.UNSUPPORTED: Traits(
        "xfailed", "model", "model", "S", "unusable",
        "Update the engine or install the runtime that this model needs; take files that are not a"
        " language model out of the manifest.",
    ),
    Verdict.TEMPLATE_ERROR: Traits(
        "failed", "model", "model", "J", "unusable",
        "Mend the chat template.",
    ),
    Verdict.INCONCLUSIVE: Traits(
        "skipped", "test", "unclear", "~", "unclear",
        "This model is too weak for this probe; try another check.",
        status="untested",
    ),
    Verdict.CRASHED: Traits(
        "failed", "size", "bad", "X", "engine",
        "Update the engine, or try other load settings.",
        retries=1, smaller_may_help=True,
    ),
    Verdict.TIMEOUT: Traits(
        "failed", "size", "open", "T", "engine",
        "Raise `--lmstrix-load-timeout` or `--lmstrix-reply-timeout`, or see what else keeps the"
        " machine busy.",
        retries=1,
    ),
    Verdict.UNREACHABLE: Traits(
        "error", "host", "none", "N", "engine",
        "Start the server, and check its address (`--lmstrix-host` or `hosts:`) and the network.",
    ),
    Verdict.HOST_TROUBLE: Traits(
        "error", "host", "none", "H", "engine",
        "Mend the host (its runtime, version or free memory), then run again: nothing counts"
        " against the model.",
        retries=1, status="untested",
    ),
    Verdict.ENGINE_ERROR: Traits(
        "failed", "size", "bad", "!", "engine",
        retries=1, smaller_may_help=True,
    ),
}  # fmt: skip
