"""Errors of the `lmstudio` SDK and broken-off predictions as `Failure`, undecorated."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Literal

import httpx
import msgspec
from lmstudio import (
    LMStudioRuntimeError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioWebsocketError,
)

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Phase, Verdict

# Closing a client cancels what waits on it, with an error from outside the SDK.
_LOST = (LMStudioWebsocketError, CancelledError, httpx.HTTPError)

COMPLETE_REASONS: dict[str, Literal["stop", "length"]] = {
    "eosFound": "stop",
    "stopStringFound": "stop",
    "toolCalls": "stop",
    "maxPredictedTokensReached": "length",
    "contextLengthReached": "length",
}
_BROKEN_OFF = {
    "modelUnloaded": (Verdict.CRASHED, "LM Studio unloaded the instance while it answered"),
    "userStopped": (Verdict.HOST_TROUBLE, "the answer was stopped in LM Studio"),
    "failed": (Verdict.ENGINE_ERROR, "LM Studio reports a failed prediction"),
}
_FULL = "contextLengthReached"
_DIED = "engineDied"
"""Newer than the SDK. It may follow a complete answer."""


def failure_from(
    error: Exception, phase: Phase, *, doing: str, silence_seconds: float, silent: Verdict
) -> Failure:
    """Return `error` as a `Failure`; `doing` is the current action, such as "loading llama-3.2".

    `silent` is the verdict when nothing new came for `silence_seconds`.
    """
    match error:
        case Failure():
            return error
        case LMStudioTimeoutError():
            text = f"LM Studio made no progress for {silence_seconds:g} s while {doing}"
            return Failure(text, verdict=silent, phase=phase)
        case LMStudioServerError():
            return Failure.from_engine(_words(error), phase=phase, code=_code(error))
        case _ if isinstance(error, _LOST):
            text = f"The connection to LM Studio was lost while {doing}: {_one_line(error)}"
            return Failure(text, verdict=Verdict.UNREACHABLE, phase=phase)
        case LMStudioRuntimeError():
            # A channel that ends without its last message is read from too early.
            text = f"LM Studio ended {doing} without a result ({_one_line(error)})"
        case msgspec.ValidationError():
            text = f"LM Studio answered {doing} with something that its SDK cannot read: {error}"
        case _:
            text = f"The LM Studio SDK failed while {doing}: {_one_line(error)}"
    # Before a model is requested, it cannot be at fault.
    verdict = Verdict.UNREACHABLE if phase == "connect" else Verdict.ENGINE_ERROR
    return Failure(text, verdict=verdict, phase=phase)


def _words(error: LMStudioServerError) -> str:
    # Unchecked by the SDK: any of these may be of any type.
    answer = error.server_error
    parts = (answer.root_title, answer.title, answer.cause) if answer else ()
    words = (part.strip() for part in parts if isinstance(part, str))
    return ": ".join(dict.fromkeys(filter(None, words))) or _one_line(error)


def _code(error: LMStudioServerError) -> str | None:
    match error.server_error and error.server_error.display_data:
        case {"code": str(code)}:
            return code
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def broken_off(reason: str, *, answered: bool, began: bool = True) -> Failure | None:
    """Return the failure of a prediction that ended for `reason`; a complete one has none.

    Reasons that are newer than the SDK do not count where there is an answer to judge. A prediction
    that never `began`, for want of context, had a prompt that is too long (bug tracker, 2339).
    """
    if reason == _FULL and not began:
        verdict = Verdict.CONTEXT_TOO_LARGE
        text = "LM Studio's context was full before the answer began: it has no room for the prompt"
    elif reason in _BROKEN_OFF:
        verdict, text = _BROKEN_OFF[reason]
    elif reason in COMPLETE_REASONS or answered:
        return None
    elif reason == _DIED:
        verdict, text = Verdict.CRASHED, "LM Studio's engine died before it answered"
    else:
        verdict = Verdict.UNREACHABLE
        text = f"this LM Studio is newer than the SDK: it ended an empty answer with {reason!r}"
    return Failure(text, verdict=verdict, phase="predict")
