"""Errors of backends, runtimes, proxies and templates, in the words of the field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_lmstrix.core.classify import classify
from pytest_lmstrix.core.verdicts import Phase, Verdict

LINES = (Path(__file__).parent / "field_errors.tsv").read_text(encoding="utf-8").splitlines()[1:]
MESSAGES = [
    (message.replace(r"\n", "\n"), Verdict(verdict))
    for message, verdict in (line.split("\t") for line in LINES)
]
LM_STUDIO = "Failed to load the model\n\nFailed to load model: {}"
LLAMA_CPP = "llama-server: loading /models/tiny.gguf, n_ctx = 4096\n{}\nllama-server: exiting"
OLLAMA = 'time=2026-05-01T10:00:00Z level=ERROR source=sched.go:470 msg="load" error="{}"'


@pytest.mark.parametrize("around", ["{}", LM_STUDIO, LLAMA_CPP, OLLAMA])
def test_words_of_the_field_are_classified_whoever_reports_them(around: str) -> None:
    wrong = [
        f"{verdict} but {found}: {message}"
        for message, verdict in MESSAGES
        if (found := classify(around.format(message), phase="load")) is not verdict
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("phase", [None, "load", "predict", "unload"])
def test_what_only_a_host_can_cause_is_never_held_against_a_model(phase: Phase | None) -> None:
    hosts = [message for message, verdict in MESSAGES if verdict.subject == "host"]
    assert len(hosts) > 50
    assert {classify(message, phase=phase).subject for message in hosts} == {"host"}


def test_a_companion_never_makes_its_model_missing_or_corrupted() -> None:
    companions = ("draft", "mmproj", "projector", "lora", "speculative", "vision", "clip")
    found = {
        classify(message)
        for message, _ in MESSAGES
        if any(re.search(rf"\b{name}", message.lower()) for name in companions)
    }
    assert found == {Verdict.ENGINE_ERROR}


@pytest.mark.parametrize(
    "name", ["org/qwen-mtp-7b", "lora-7b", "x-draft", "speculative/x", "y/clip"]
)
def test_a_model_that_is_named_like_a_companion_is_a_model(name: str) -> None:
    for text in (f"Model not found: {name}", f"model '{name}' not found, try pulling it first"):
        assert classify(text, phase="load") is Verdict.MODEL_NOT_FOUND
    text = f"error loading model: llama_model_loader: failed to load model from /m/{name}.gguf"
    assert classify(text, phase="load") is Verdict.CORRUPTED


@pytest.mark.parametrize(
    "line",
    [
        "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected",
        "ggml_vulkan: No devices found.",
    ],
)
def test_a_backend_without_a_device_is_not_why_a_load_fails(line: str) -> None:
    text = f"{line}\ngguf_init_from_file: invalid magic characters 'Inte'"
    assert classify(text, phase="load") is Verdict.CORRUPTED
    assert classify(line, phase="load") is Verdict.ENGINE_ERROR


@pytest.mark.parametrize(
    "sentence",
    [
        "The virus contains a protein that binds to the cells of the lung.",
        "Her birth certificate is signed by the mayor of Oslo.",
        "The village upstream lost its only bridge in the flood.",
        "Foreign policy has changed, and the system remembers it.",
        "The package was not delivered because nobody was at home.",
        "A compatible blood group matters: no other donor could be used.",
        "My memory of that context is not good, but the model house was red.",
        "The driver said that the engine was running well at 429 km.",
        "Access to water is limited, and the runner drank before the start.",
        "The program was written in 1969 for a machine that no longer exists.",
        "To install the shelf, find the screws first; the file is for the edges.",
        "Das Gedächtnis ist gut, die Verbindung zum Dorf bleibt offen.",
        "La mémoire du village est vive, le chemin est long.",
    ],
)
def test_what_a_model_says_is_no_error(sentence: str) -> None:
    assert classify(sentence) is Verdict.ENGINE_ERROR
