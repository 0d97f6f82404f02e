"""Errors of LM Studio and its SDK: their text is kept, and they get their verdicts."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any

import httpx
import lmstudio
import msgspec
import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.sanitize import well_formed
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.lmstudio import errors
from tests.standin.lmstudio import Fault, Says, ServerError, StandInModel
from tests.standin.lmstudio.models import hostile

NOT_LOADED = ServerError(
    title="No model found that fits the query.",
    display_data={"code": "generic.noModelMatchingQuery"},
)


WITHOUT_WORDS = "Model load error: 7 Additional information from server: [ 1 ]"


SERVER_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "title": ({"title": "Model unloaded."}, "Model unloaded."),
    "cause": ({"title": "Failed", "cause": "(Exit code: 6)."}, "Failed: (Exit code: 6)."),
    "root": ({"title": "Failed", "rootTitle": "Error loading"}, "Error loading: Failed"),
    "same root": ({"title": "Failed", "rootTitle": "Failed"}, "Failed"),
    "decoration": (
        {"title": "Failed", "suggestion": "Retry", "displayData": {"code": "x"}, "stack": "at y"},
        "Failed",
    ),
    "nothing": ({}, "Unknown error"),
    "empty": ({"title": ""}, "Model load error: Unknown remote error"),
    "no words": ({"title": 7, "displayData": [1]}, WITHOUT_WORDS),
}


@pytest.mark.parametrize(("details", "words"), SERVER_ERRORS.values(), ids=SERVER_ERRORS)
def test_server_errors_keep_their_text(details: dict[str, Any], words: str) -> None:
    error = lmstudio.LMStudioServerError.from_details("Model load error", details)
    failure = errors.failure_from(
        error, "load", doing="loading", silence_seconds=1.0, silent=Verdict.TIMEOUT
    )
    assert (failure.text, failure.phase) == (words, "load")
    assert failure.code == ("x" if "suggestion" in details else None)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (lmstudio.LMStudioTimeoutError(), Verdict.TIMEOUT),
        (lmstudio.LMStudioWebsocketError("gone"), Verdict.UNREACHABLE),
        (CancelledError(), Verdict.UNREACHABLE),
        (httpx.ReadTimeout("slow"), Verdict.UNREACHABLE),
        (lmstudio.LMStudioRuntimeError("active channel"), Verdict.ENGINE_ERROR),
        (msgspec.ValidationError("Expected `int`"), Verdict.ENGINE_ERROR),
        (lmstudio.LMStudioClientError("unexpected message"), Verdict.ENGINE_ERROR),
        (KeyError("tokenCount"), Verdict.ENGINE_ERROR),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_any_sdk_exception_is_a_failure(error: Exception, verdict: Verdict) -> None:
    failure = errors.failure_from(
        error, "predict", doing="answering", silence_seconds=3.0, silent=Verdict.TIMEOUT
    )
    assert (failure.verdict, failure.phase) == (verdict, "predict")
    assert "LM Studio" in failure.text
    assert "answering" in failure.text


@pytest.mark.parametrize("name", hostile.TEXTS)
def test_hostile_text_is_unchanged_but_well_formed(studio: Any, name: str) -> None:
    text = hostile.TEXTS[name]
    own = studio(StandInModel(key="tiny", behaviours=(Says(text=text),)))
    instance = own.load()
    reply = instance.complete("Go on:", max_tokens=1000)
    assert reply.text == well_formed(text)
    instance.unload()


def test_an_instance_that_disappears_right_after_loading(studio: Any) -> None:
    own = studio(faults=(Fault(where="getModelInfo", kind="error", error=NOT_LOADED),))
    with pytest.raises(Failure) as failed:
        own.load()
    assert failed.value.verdict is Verdict.CRASHED


@pytest.mark.parametrize("kind", ["close_channel", "garbage"])
@pytest.mark.parametrize("where", ["load", "predict"])
def test_invalid_server_messages_are_not_the_models_fault(
    studio: Any, kind: Any, where: Any
) -> None:
    own = studio(faults=(Fault(where=where, kind=kind, text="{"),), load_timeout=5.0)
    with pytest.raises(Failure) as failed:
        own.load().complete("2 + 3 =", max_tokens=4)
    assert failed.value.verdict in (Verdict.ENGINE_ERROR, Verdict.UNREACHABLE)
    own.engine.sweep(lambda owner: True)
