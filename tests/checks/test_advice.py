"""The advice under a verdict fits its cause and the settings in force."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pytest_lmstrix.checks.advice import advice_for
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict

CHAT = '{"prompts":"chat"}'


def advice(
    verdict: Verdict, detail: str = "", *, settings: str = "", engine: str = "lmstudio"
) -> str:
    return advice_for(
        Result(
            run="r",
            at=datetime(2026, 1, 1, tzinfo=UTC),
            model="m",
            engine=engine,
            check="full",
            context_length=4096,
            verdict=verdict,
            outcome=verdict.outcome,
            detail=detail,
            settings=settings,
        )
    )


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("chat", ["", *Verdict])
def test_no_form_is_advised_that_is_in_force(verdict: Verdict, chat: str) -> None:
    detail = f"said nothing\nthrough the chat template: {chat}" if chat else "said nothing"
    assert "prompts: completion" not in advice(verdict, detail)
    assert "prompts: chat" not in advice(verdict, detail, settings=CHAT)


def test_a_spent_budget_is_advised_against_by_what_can_be_changed() -> None:
    budget = Verdict.NO_ANSWER_IN_BUDGET
    raise_it = "Raise `answer_tokens` of the model, or switch off its thinking."
    assert advice(budget) == raise_it
    assert advice(budget, settings=CHAT) == (
        "Raise `answer_tokens` of the model, switch off its thinking, or set `prompts: completion`."
    )
    for verdict in (budget, Verdict.EMPTY_REPLY):
        assert advice(verdict, "x\nthrough the chat template: no_answer_in_budget") == raise_it
        assert advice(verdict, "x\nthrough the chat template: template_error: no") == (
            "Mend the chat template: the model answers no raw completion."
        )
        # A larger budget does not mend an answer that came.
        assert advice(verdict, "x\nthrough the chat template: wrong_answer") == ""


def test_silence_through_the_template_is_advised_against_by_the_other_form() -> None:
    other = "Set `prompts: completion`, or mend the chat template."
    assert advice(Verdict.EMPTY_REPLY, settings=CHAT) == other
    assert advice(Verdict.TEMPLATE_ERROR, settings=CHAT) == other
    assert advice(Verdict.EMPTY_REPLY) == ""
    assert advice(Verdict.TEMPLATE_ERROR) == "Mend the chat template."


def test_a_log_is_advised_only_where_there_is_one() -> None:
    for verdict in (Verdict.CRASHED, Verdict.ENGINE_ERROR):
        assert advice(verdict).startswith("See LM Studio's log in its Developer tab.")
        for engine in ("llamacpp", "other"):
            assert "log" not in advice(verdict, "killed", engine=engine)
        named = advice(verdict, "killed\nlog: /reports/logs/a.log", engine="llamacpp")
        assert named.startswith("See the log in the folder `logs` of the reports.")


@pytest.mark.parametrize(
    ("verdict", "detail", "remedy"),
    [
        ("host_trouble", "another client has tiny loaded in Ollama", "Unload it there"),
        ("host_trouble", "no room\nstill in memory of host: big (21 GB)", "Unload it there"),
        ("host_trouble", "401 Unauthorized: invalid API token", "Check the key or token"),
        ("host_trouble", "429 Too Many Requests", "Run again when the server has less to do"),
        ("host_trouble", "write ENOSPC: no space left on device", "Make room on the disk"),
        ("host_trouble", "Invalid load message", "Update pytest-lmstrix and the `lmstudio` SDK"),
        ("host_trouble", "CUDA driver version is insufficient", "Update or mend the driver"),
        (
            "host_trouble",
            "Failed to load LLM engine from path: C:\\x.node. The specified module could not be"
            " found.",
            "Update or reinstall the engine's runtime",
        ),
        ("host_trouble", "libcuda.so.1: cannot open shared object file", "Update or reinstall"),
        ("host_trouble", "the answer was stopped in LM Studio", "Run again, and let it finish"),
        ("host_trouble", "Failed to start the worker: code 7", "Mend the host"),
        (
            "unreachable",
            "LM Link connection entered error state: peer_keepalive_timeout",
            "Check in LM Studio that the linked device is on",
        ),
        ("unreachable", "this LM Studio is newer than the SDK: it ended", "Update pytest-lmstrix"),
        (
            "unreachable",
            "<html><h1>502 Bad Gateway</h1></html>",
            "See whether the server or a proxy",
        ),
        ("unreachable", "connection refused", "Start the server"),
        (
            "context_not_granted",
            "a request gets 2,048 of the 8,192 tokens granted (one of 4 slots): too long",
            "Set the server's parallel requests to 1",
        ),
        *(
            (
                verdict,
                f"4 requests at once {get} 8,192 tokens each",
                "The engine divides one window",
            )
            for verdict, get in (
                ("context_not_granted", "get 2,048 of"),
                ("prompt_truncated", "get 2,048 of"),
                ("context_too_large", "do not get"),
            )
        ),
        ("context_not_granted", "asked for 2,048 tokens, granted 1,024", "Ask for a smaller"),
        (
            "engine_error",
            "failed to load draft model, '/m/x-mtp.gguf': invalid vector subscript",
            "Mend, update or take away the companion",
        ),
    ],
)
def test_the_remedy_fits_the_cause_in_the_engines_words(
    verdict: str, detail: str, remedy: str
) -> None:
    assert advice(Verdict(verdict), detail).startswith(remedy)
    if verdict == "host_trouble":
        assert advice(Verdict(verdict), detail).endswith("nothing counts against the model.")
