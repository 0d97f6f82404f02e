"""The advice under a result, which depends on its verdict, its cause and its settings."""

from __future__ import annotations

import re

from pytest_lmstrix.core.error_patterns.rules import COMPANION
from pytest_lmstrix.core.failure import LOG_LINE
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.capability.prove import DOES_NOT_HOLD, NOTHING_DECLARED
from pytest_lmstrix.probes.questions import THROUGH_TEMPLATE

_SEE_LOG = "See the log in the folder `logs` of the reports."
_SEE_LM_STUDIO = "See LM Studio's log in its Developer tab."
_NO_BLAME = "nothing counts against the model."
_AT_ONCE = r"^\d+ requests at once (?:do not )?get|\n\d+ requests at once (?:do not )?get"
_SHARED = (
    "The engine divides one window among its slots: give it more context for all of them, or ask"
    " for fewer with `parallel`."
)
_CAUSES: dict[Verdict, tuple[tuple[str, str], ...]] = {
    Verdict.HOST_TROUBLE: (
        (
            r"another client has|still in memory of",
            f"Unload it there, or run again when it is free: {_NO_BLAME}",
        ),
        (
            r"unauthori[sz]ed|forbidden|passkey|(?:api|access|bearer)[ _-](?:key|token)",
            f"Check the key or token that the server wants: {_NO_BLAME}",
        ),
        (
            r"too many requests|rate.limit|pending requests|turned the request away",
            f"Run again when the server has less to do: {_NO_BLAME}",
        ),
        (r"no space|ENOSPC|\bdisk\b", f"Make room on the disk of the server: {_NO_BLAME}"),
        (
            r"\b(?:sdk|client|protocol|method|endpoint|channel|load message)\b",
            f"Update pytest-lmstrix and the `lmstudio` SDK, or the server: {_NO_BLAME}",
        ),
        (
            r"\b(?:driver|cuda|rocm|hip|vulkan|nvml|nvidia)\b.{0,40}(?:driver|init|device)",
            f"Update or mend the driver of the GPU: {_NO_BLAME}",
        ),
        (
            r"\b(?:engine|runtime|librar(?:y|ies)|module|dlopen|metallib|symbol|shared object)\b"
            r"|\.(?:dll|dylib|so|node)\b",
            f"Update or reinstall the engine's runtime that is named above: {_NO_BLAME}",
        ),
        (r"stopped in LM Studio|cancell?ed", f"Run again, and let it finish: {_NO_BLAME}"),
    ),
    Verdict.UNREACHABLE: (
        # These words name the remedy.
        (r"what answers at |(?:API|environment) (?:token|variable)|api_key_env", ""),
        (r"\blm ?link\b", "Check in LM Studio that the linked device is on and connected."),
        (r"newer than the SDK", "Update pytest-lmstrix and the `lmstudio` SDK."),
        (
            r"<html|proxy|bad gateway|\b50[23]\b",
            "See whether the server or a proxy before it answers; check `--lmstrix-host`.",
        ),
    ),
    Verdict.CONTEXT_TOO_LARGE: ((_AT_ONCE, _SHARED),),
    Verdict.PROMPT_TRUNCATED: ((_AT_ONCE, _SHARED),),
    Verdict.CONTEXT_NOT_GRANTED: (
        (_AT_ONCE, _SHARED),
        (
            r"\(one of \d+ slots\)",
            "Set the server's parallel requests to 1, or let them share one KV cache.",
        ),
    ),
    Verdict.ENGINE_ERROR: (
        (
            COMPANION,
            "Mend, update or take away the companion that is named above (draft model, projector,"
            " adapter): the model's own file is not at fault.",
        ),
    ),
}
"""Verdict -> causes in its words, the first match decides, and their remedies."""


def advice_for(result: Result) -> str:
    """Return a remedy in one line, or an empty text."""
    if result.check == "capability" and (advice := _on_the_capability(result)) is not None:
        return advice
    for cause, advice in _CAUSES.get(result.verdict, ()):
        if re.search(cause, result.detail, re.IGNORECASE):
            return advice
    match result.verdict:
        case Verdict.NO_ANSWER_IN_BUDGET | Verdict.EMPTY_REPLY:
            return _on_the_form(result)
        case Verdict.TEMPLATE_ERROR if _asks_by_chat(result):
            return "Set `prompts: completion`, or mend the chat template."
        case Verdict.CRASHED | Verdict.ENGINE_ERROR | Verdict.TIMEOUT:
            return " ".join(filter(None, (_on_the_log(result), result.verdict.advice)))
    return result.verdict.advice


def _on_the_capability(result: Result) -> str | None:
    budget = Verdict.NO_ANSWER_IN_BUDGET
    if result.verdict.outcome == "failed" and DOES_NOT_HOLD in result.detail:
        if result.verdict is budget:
            return budget.advice
        return (
            "Update the engine or the model's chat template, or do without this capability:"
            " remove it from `capabilities` in the manifest if it is there."
        )
    if result.verdict is Verdict.INCONCLUSIVE and NOTHING_DECLARED in result.detail:
        return "Add to `capabilities` in the manifest what the model should be able to do."
    return None


def _asks_by_chat(result: Result) -> bool:
    """Whether `prompts: chat` is in force."""
    return '"prompts":"chat"' in result.settings


def _on_the_form(result: Result) -> str:
    budget = Verdict.NO_ANSWER_IN_BUDGET
    if _asks_by_chat(result):
        if result.verdict is budget:
            return (
                "Raise `answer_tokens` of the model, switch off its thinking, or set"
                " `prompts: completion`."
            )
        return "Set `prompts: completion`, or mend the chat template."
    _, chat, words = result.detail.rpartition(THROUGH_TEMPLATE)
    if not chat:
        return result.verdict.advice
    if words.startswith(budget):
        return budget.advice
    if words.startswith(Verdict.TEMPLATE_ERROR):
        return "Mend the chat template: the model answers no raw completion."
    return ""


def _on_the_log(result: Result) -> str:
    if f"\n{LOG_LINE}" in result.detail:
        return _SEE_LOG
    asks_lm_studio = result.engine == "lmstudio" and result.verdict is not Verdict.TIMEOUT
    return _SEE_LM_STUDIO if asks_lm_studio else ""
