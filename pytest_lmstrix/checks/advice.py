"""The advice under a result, which depends on its verdict, its cause and its settings."""

from __future__ import annotations

from pytest_lmstrix.core.failure import LOG_LINE
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.questions import THROUGH_TEMPLATE

_SEE_LOG = "See the log in the folder `logs` of the reports."
_SEE_LM_STUDIO = "See LM Studio's log in its Developer tab."


def advice_for(result: Result) -> str:
    """Return a remedy in one line, or an empty text."""
    match result.verdict:
        case Verdict.NO_ANSWER_IN_BUDGET | Verdict.EMPTY_REPLY:
            return _on_the_form(result)
        case Verdict.TEMPLATE_ERROR if _asks_by_chat(result):
            return "Set `prompts: completion`, or mend the chat template."
        case Verdict.CRASHED | Verdict.ENGINE_ERROR | Verdict.TIMEOUT:
            return " ".join(filter(None, (_on_the_log(result), result.verdict.advice)))
    return result.verdict.advice


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
