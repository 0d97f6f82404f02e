"""Classification of engine errors by code, text, phase and exit status."""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.core.classify import classify
from pytest_lmstrix.core.verdicts import Phase, Verdict
from tests.core.failure_families import FAMILIES

NAMES = {
    "unsupported_architecture": "unsupported",
    "server_unreachable": "unreachable",
    "other": "engine_error",
}

LATER = {
    "Error rendering prompt with jinja template": "template_error",
    "Failed to load LLM engine from path": "host_trouble",
}
"""The verdicts that the collection is older than: start of a message -> verdict."""

LINES = (Path(__file__).parent / "errors.tsv").read_text(encoding="utf-8").splitlines()[1:]
MESSAGES = [
    (message, Verdict(LATER.get(message.partition(":")[0], NAMES.get(name, name))))
    for message, name in (line.split("\t") for line in LINES)
]


def test_known_messages_are_classified() -> None:
    wrong = [
        f"{verdict} but {classify(message)}: {message}"
        for message, verdict in MESSAGES
        if classify(message) != verdict
    ]
    assert not wrong, "\n".join(wrong)


@given(
    st.sampled_from(MESSAGES),
    st.sampled_from(
        [
            "",
            "2025-06-01T12:00:00.123Z ",
            "[2026-02-07 20:15:37.495] [error] [LMSInternal][Client=LM Studio] ",
            "time=2025-01-05T17:16:18.172-08:00 level=ERROR source=server.go:12 msg=",
            "\x1b[31mERROR\x1b[0m ",
            "llama-server[1234]: 0.00.123.456 E ",
            "Starting.\nLoading bloom-7b zoom edition, timeout=600, n_ctx = 4096\n",
        ]
    ),
    st.sampled_from(["", "\n", "\r\nmain: exiting due to model loading error\n", " \x1b[0m"]),
    st.sampled_from([str, str.upper, str.lower]),
)
def test_case_and_surroundings_do_not_matter(
    seen: tuple[str, Verdict], before: str, after: str, case: type[str]
) -> None:
    message, verdict = seen
    # A newline escaped as backslash and n counts as a newline, regardless of case.
    message = case(message.replace(r"\n", "\n"))
    assert classify(before + message + after) == verdict


@pytest.mark.parametrize(
    ("code", "phase", "verdict"),
    [
        ("generic.pathNotFound", "load", Verdict.MODEL_NOT_FOUND),
        ("generic.noModelMatchingQuery", "unload", Verdict.MODEL_NOT_FOUND),
        # The model was loaded, so it exists: the instance has died.
        ("generic.noModelMatchingQuery", "predict", Verdict.CRASHED),
        ("generic.specificModelUnloaded", "predict", Verdict.CRASHED),
        ("generic.missingRuntimeExtension", "load", Verdict.UNSUPPORTED),
        ("generic.engineDoesNotSupportFeature", "predict", Verdict.UNSUPPORTED),
        ("generic.domainMismatch", "load", Verdict.ENGINE_ERROR),
        ("exceed_context_size_error", "predict", Verdict.CONTEXT_TOO_LARGE),
        ("unavailable_error", "load", Verdict.TIMEOUT),
        ("ECONNREFUSED", None, Verdict.UNREACHABLE),
    ],
)
def test_an_error_code_takes_precedence_over_text(
    code: str, phase: Phase | None, verdict: Verdict
) -> None:
    assert classify("", code=code, phase=phase) == verdict
    if code != "ECONNREFUSED":  # a word of the text, not a structured code
        assert classify("Segmentation fault, out of memory", code=code, phase=phase) == verdict
        assert classify(f'{{"type": "{code}", "x": "timed out"}}', phase=phase) == verdict


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (-6, Verdict.CRASHED),
        (-9, Verdict.CRASHED),
        (-11, Verdict.CRASHED),
        (134, Verdict.CRASHED),
        (137, Verdict.CRASHED),
        (139, Verdict.CRASHED),
        (0xC0000005, Verdict.CRASHED),
        (0xC0000005 - 2**32, Verdict.CRASHED),
        (18446744072635812000, Verdict.CRASHED),
        (0xC0000017, Verdict.OUT_OF_MEMORY),
        (0xC000012D - 2**32, Verdict.OUT_OF_MEMORY),
        (2**64 - 2**32 + 0xC0000017, Verdict.OUT_OF_MEMORY),
        (0, Verdict.ENGINE_ERROR),
        (1, Verdict.ENGINE_ERROR),
        (None, Verdict.ENGINE_ERROR),
    ],
)
def test_exit_status_decides_when_the_text_is_unknown(status: int | None, verdict: Verdict) -> None:
    assert classify("main: exiting", phase="load", exit_status=status) == verdict
    assert classify("bad magic", phase="load", exit_status=status) == Verdict.CORRUPTED


def test_a_process_exit_during_prediction_is_a_crash() -> None:
    assert classify("", phase="predict", exit_status=0) == Verdict.CRASHED
    assert classify("", phase="predict", exit_status=1) == Verdict.CRASHED


def test_a_killed_process_is_out_of_memory_only_with_evidence() -> None:
    assert classify("", exit_status=-9) == Verdict.CRASHED
    assert classify("oom-kill: task=llama-server", exit_status=-9) == Verdict.OUT_OF_MEMORY


@pytest.mark.parametrize("text", ["timed out", "Authentication failed", *chain(*FAMILIES.values())])
def test_failures_before_the_connection_are_not_the_models_fault(text: str) -> None:
    assert classify(text, phase="connect") == Verdict.UNREACHABLE


@given(
    st.text(st.characters()) | st.text("modelx ()=:'\\n[]<>.\x1b\n", max_size=2_000),
    st.sampled_from([None, "connect", "load", "predict", "unload"]),
    st.none() | st.text(max_size=30),
    st.none() | st.integers(),
)
def test_classify_never_raises(
    text: str, phase: Phase | None, code: str | None, status: int | None
) -> None:
    assert isinstance(classify(text, phase=phase, code=code, exit_status=status), Verdict)


@pytest.mark.parametrize(
    "part",
    [
        "a",
        " ",
        "\n",
        "1",
        "\\n",
        "model ",
        "exceed ",
        "alloc buffer ",
        "n_ctx ",
        "no abc ",
        "out of ",
    ],
)
def test_a_megabyte_of_text_is_classified_quickly(part: str) -> None:
    text = part * (1_000_000 // len(part))
    began = time.process_time()
    assert classify(text) == Verdict.ENGINE_ERROR
    assert time.process_time() - began < 20  # quadratic time would be hours


def test_head_and_tail_of_a_long_log_are_classified() -> None:
    filler = "llama_model_loader: - kv 10: llama.block_count u32 = 32\n" * 20_000
    assert classify(filler + "cudaMalloc failed: out of memory") == Verdict.OUT_OF_MEMORY
    assert classify("cudaMalloc failed: out of memory\n" + filler) == Verdict.OUT_OF_MEMORY


def test_policy_of_each_verdict() -> None:
    retried = {Verdict.CRASHED, Verdict.TIMEOUT, Verdict.ENGINE_ERROR, Verdict.HOST_TROUBLE}
    assert {each for each in Verdict if each.retries} == retried
    assert {each for each in Verdict if each.smaller_may_help} == {
        Verdict.WRONG_ANSWER,
        Verdict.EMPTY_REPLY,
        Verdict.RECALL_FAILED,
        Verdict.PROMPT_TRUNCATED,
        Verdict.CONTEXT_NOT_GRANTED,
        Verdict.CONTEXT_TOO_LARGE,
        Verdict.OUT_OF_MEMORY,
        Verdict.GUARDRAIL_REFUSED,
        Verdict.CRASHED,
        Verdict.ENGINE_ERROR,
    }
    assert {each for each in Verdict if each.outcome == "xfailed"} == {
        Verdict.MODEL_NOT_FOUND,
        Verdict.CORRUPTED,
        Verdict.UNSUPPORTED,
    }
    assert all("\n" not in each.advice for each in Verdict)


@pytest.mark.parametrize("text", ["Model does not exist", "No models loaded", "model not found"])
def test_a_missing_model_is_a_crash_while_predicting(text: str) -> None:
    assert classify(text, phase="load") == Verdict.MODEL_NOT_FOUND
    assert classify(text, phase="predict") == Verdict.CRASHED


@pytest.mark.parametrize(
    ("text", "verdict"),
    [(text, verdict) for verdict, texts in FAMILIES.items() for text in texts],
    ids=[f"{verdict}-{n}" for verdict, texts in FAMILIES.items() for n in range(len(texts))],
)
def test_failure_families(text: str, verdict: Verdict) -> None:
    assert classify(text) == verdict
