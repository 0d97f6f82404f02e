"""Files that do not load, chat templates that cannot be rendered, and other architectures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Message
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.questions import FULL, HELLO, ask, grade
from tests.engines.llamacpp.child_process.loads import FEW_SHOT, ModelLoader
from tests.standin import weights
from tests.standin.gguf_bytes import write_split
from tests.standin.tiny_models import write_tiny_model

pytest.importorskip("xllamacpp")


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("damage", "verdict", "reason"),
    [
        pytest.param(_cut, Verdict.CORRUPTED, "cut short: 4", id="cut short"),
        pytest.param(
            lambda data: data[:9999], Verdict.CORRUPTED, "ends within its header", id="header cut"
        ),
        pytest.param(lambda _: b"junk" * 999, Verdict.CORRUPTED, "a text, not a", id="junk"),
        pytest.param(lambda _: b"", Verdict.CORRUPTED, "an empty file", id="empty"),
        pytest.param(
            lambda data: data.replace(b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0lambda"[:13], 1),
            Verdict.UNSUPPORTED,
            "unknown model architecture",
            id="unknown architecture",
        ),
    ],
)
def test_a_bad_file_is_named(
    loader: ModelLoader,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    verdict: Verdict,
    reason: str,
) -> None:
    # A verdict must not come from the words of a path.
    bad = tmp_path / "out of memory.gguf"
    bad.write_bytes(damage(weights.smollm2().read_bytes()))
    with pytest.raises(Failure, match=reason) as failure:
        loader.load(source=bad)
    assert failure.value.verdict is verdict
    assert failure.value.phase == "load"
    assert "Traceback" not in failure.value.text


def test_a_missing_file_is_model_not_found(loader: ModelLoader, tmp_path: Path) -> None:
    first, second = write_split(tmp_path, "big", 2)
    second.unlink()
    for path, words in (
        (tmp_path / "missing.gguf", "no such file"),
        (first, "of which big-00002-of-00002.gguf is missing"),
    ):
        with pytest.raises(Failure, match=words) as failure:
            loader.load(source=path)
        assert failure.value.verdict is Verdict.MODEL_NOT_FOUND
    assert loader.processes() == []


CHAT = (Message(role="user", content="Hello"),)


@pytest.fixture(scope="module", params=["in Go syntax", "that raises", "cut short"])
def bad_template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with a chat template that llama.cpp refuses."""
    template = {
        "in Go syntax": "{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}",
        "that raises": "{{ raise_exception('out of memory') }}",
        "cut short": "{% for message in messages %}{{ message.content ",
    }[request.param]
    data = weights.smollm2().read_bytes()
    key = data.index(b"tokenizer.chat_template") + len(b"tokenizer.chat_template") + 4
    size = int.from_bytes(data[key : key + 8], "little")
    path = tmp_path_factory.mktemp("template") / "model.gguf"
    path.write_bytes(data[: key + 8] + template.encode().ljust(size) + data[key + 8 + size :])
    return path


def test_a_bad_chat_template_does_not_stop_completions(
    loader: ModelLoader, bad_template: Path
) -> None:
    instance = loader.load(source=bad_template)
    assert instance.complete(FEW_SHOT, max_tokens=2).text.split()[0] == "5"
    with pytest.raises(Failure, match="template") as failure:
        instance.chat(CHAT, max_tokens=2)
    assert (failure.value.verdict, failure.value.phase) == (Verdict.TEMPLATE_ERROR, "predict")
    instance.unload()


def test_a_bad_chat_template_stops_a_model_that_is_to_chat(
    loader: ModelLoader, bad_template: Path
) -> None:
    with pytest.raises(Failure, match="template") as failure:
        loader.load(source=bad_template, prompts="chat")
    assert (failure.value.verdict, failure.value.phase) == (Verdict.TEMPLATE_ERROR, "load")


def test_a_chat_template_that_raises_later_is_a_template_error(
    loader: ModelLoader, tmp_path: Path
) -> None:
    template = (
        "{% if messages[0].content == 'Hello' %}{{ raise_exception('out of memory') }}{% endif %}"
        "{{ messages[0].content }}"
    )
    path = write_tiny_model(tmp_path / "m.gguf", tokenizer__chat_template=template)
    instance = loader.load(source=path, prompts="chat")
    with pytest.raises(Failure, match="out of memory") as failure:
        instance.chat(CHAT, max_tokens=2)
    assert (failure.value.verdict, failure.value.phase) == (Verdict.TEMPLATE_ERROR, "predict")
    assert instance.complete("2 + 3 =", max_tokens=2).text == " 5"
    instance.unload()


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_a_tiny_model_of_another_architecture_answers(
    loader: ModelLoader, tmp_path: Path, architecture: str
) -> None:
    instance = loader.load(source=write_tiny_model(tmp_path / "m.gguf", architecture))
    for question in (HELLO, *FULL):
        assert grade(question, ask(instance, "completion", question)) is Verdict.OK
    instance.unload()
