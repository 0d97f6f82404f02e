"""The user's own `llama-server`: what can be wrong with it, and its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LoadSettings, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import NO_ENGINE
from pytest_lmstrix.engines.llamacpp.binary import Binary
from pytest_lmstrix.engines.llamacpp.own_binary import LlamaServerEngine
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from tests.standin.llama_server.program import BUILD, write_llama_server
from tests.standin.tiny_models import write_tiny_model

PATIENCE = 60.0


class Silent:
    """A `Progress` that ignores every report."""

    def __call__(self, fraction: float, /) -> None:
        pass

    def prefill(self, done: int, total: int) -> None:
        pass


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., LlamaCppInstance]:
    """Loads a tiny model with a program of some behaviour; no process may be left after it."""

    def load(
        behaviour: str = "gpu",
        *,
        load: LoadSettings | None = None,
        load_timeout: float = PATIENCE,
        reply_timeout: float = PATIENCE,
        logs: Path | None = None,
        owner: str | None = None,
    ) -> LlamaCppInstance:
        program = write_llama_server(tmp_path, behaviour)
        engine = LlamaServerEngine(
            str(program),
            load_timeout=load_timeout,
            reply_timeout=reply_timeout,
            logs=logs,
            owner=owner,
        )
        path = write_tiny_model(tmp_path / "tiny.gguf")
        model = Model(
            id="tiny", engine="llama-server", source=str(path), load=load or LoadSettings()
        )
        return engine.load(model, 512, Silent())

    return load


def command_of(instance: LlamaCppInstance) -> list[str]:
    """The arguments of the running program."""
    (supervisor,) = instance._child._tree[:1]
    (server,) = supervisor.children()
    words = server.cmdline()
    return words[words.index("--model") :]


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


# --- a program that cannot be used: trouble of this machine, for every model


def assert_unusable(failure: Failure, *words: str) -> None:
    assert (failure.verdict, failure.phase) == (Verdict.UNREACHABLE, "connect")
    assert failure.verdict.subject == "host"
    assert failure.final
    assert failure.code == NO_ENGINE
    assert all(word in failure.text for word in words), failure.text


def test_a_missing_program_names_where_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failure) as on_path:
        _ = Binary(None).version
    assert_unusable(on_path.value, "no llama-server on PATH", "lmstrix_llama_server")
    with pytest.raises(Failure) as at_path:
        _ = Binary(str(tmp_path / "bin" / "llama-server")).version
    assert_unusable(at_path.value, "lmstrix_llama_server", str(tmp_path / "bin"))


def test_a_program_on_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = write_llama_server(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert Binary(None).path == program
    assert Binary("llama-server").version == BUILD


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permission")
def test_a_program_that_is_not_executable_is_named(tmp_path: Path) -> None:
    program = write_llama_server(tmp_path)
    program.chmod(0o644)
    with pytest.raises(Failure) as failure:
        _ = Binary(str(program)).version
    assert_unusable(failure.value, str(program), "cannot be started: Permission denied")


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("exits", "--version ended with exit status 1: --version prints nothing"),
        ("prints help", "is not llama.cpp's server: --version prints 'usage: another-program"),
        ("prints junk", "is not llama.cpp's server: --version prints 'junk junk"),
        ("hangs", "--version does not answer within 1 s"),
        ("without: --ctx-size", "has no --ctx-size"),
    ],
)
def test_a_wrong_program_is_named(tmp_path: Path, behaviour: str, words: str) -> None:
    program = write_llama_server(tmp_path, behaviour)
    seconds = 1.0 if behaviour == "hangs" else PATIENCE
    with pytest.raises(Failure) as failure:
        _ = Binary(str(program), query_seconds=seconds).flags
    assert_unusable(failure.value, str(program), words)
    assert descendants() == []


def test_a_wrong_program_is_not_the_fault_of_a_model(
    load: Callable[..., LlamaCppInstance],
) -> None:
    with pytest.raises(Failure) as failure:
        load("prints help")
    assert_unusable(failure.value)


# --- its settings


def test_settings_become_arguments(load: Callable[..., LlamaCppInstance]) -> None:
    settings = LoadSettings(
        gpu_layers=20,
        tensor_split=(3, 1.5),
        n_cpu_moe=4,
        kv_cache_type="q8_0",
        flash_attention=True,
        batch_size=64,
        threads=2,
        extra_args=("--swa-full",),
    )
    instance = load(load=settings)
    words = command_of(instance)
    instance.unload()
    text = " ".join(words)
    for pair in (
        "--ctx-size 512", "--parallel 1", "--host 127.0.0.1", "--port 0", "--fit off",
        "--no-context-shift", "--n-gpu-layers 20", "--tensor-split 3,1.5", "--n-cpu-moe 4",
        "--cache-type-k q8_0", "--cache-type-v q8_0", "--flash-attn on", "--batch-size 64",
        "--ubatch-size 64", "--threads 2", "--threads-batch 2",
    ):  # fmt: skip
        assert f"{pair} " in text
    assert words[-1] == "--swa-full"


def test_an_old_program_gets_only_flags_that_it_knows(
    load: Callable[..., LlamaCppInstance],
) -> None:
    instance = load("old", load=LoadSettings(flash_attention=True))
    words = command_of(instance)
    assert "--fit" not in words
    assert words[words.index("--flash-attn") + 1 :] == []  # a switch, without a value
    with pytest.raises(Failure, match="too old") as failure:
        instance.complete("2 + 3 =", max_tokens=1)
    assert failure.value.verdict is Verdict.HOST_TROUBLE
    instance.unload()


@pytest.mark.parametrize(
    ("behaviour", "settings", "flag"),
    [
        ("gpu", LoadSettings(extra_args=("--swa-fill",)), "--swa-fill, which 'extra_args'"),
        (
            "without: --n-cpu-moe",
            LoadSettings(n_cpu_moe=4),
            "--n-cpu-moe, which the setting 'n_cpu_moe'",
        ),
    ],
)
def test_a_flag_that_the_program_does_not_know_is_not_the_fault_of_the_model(
    load: Callable[..., LlamaCppInstance], behaviour: str, settings: LoadSettings, flag: str
) -> None:
    with pytest.raises(Failure) as failure:
        load(behaviour, load=settings)
    assert (failure.value.verdict, failure.value.final) == (Verdict.HOST_TROUBLE, True)
    assert f"does not know {flag} needs" in failure.value.text


def test_an_argument_that_the_program_refuses_is_not_the_fault_of_the_model(
    load: Callable[..., LlamaCppInstance],
) -> None:
    with pytest.raises(Failure) as failure:
        load(load=LoadSettings(extra_args=("--rope-scaling", "maybe")))
    assert (failure.value.verdict, failure.value.final) == (Verdict.HOST_TROUBLE, True)
    assert 'error while handling argument "--rope-scaling"' in failure.value.text


def test_layers_for_a_gpu_need_one(load: Callable[..., LlamaCppInstance]) -> None:
    with pytest.raises(Failure, match="gpu_layers: 3, but llama-server finds no GPU here"):
        load("", load=LoadSettings(gpu_layers=3))


def test_variables_of_the_environment_do_not_change_settings(
    load: Callable[..., LlamaCppInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_MODELS_DIR", "/models")  # would make it a router
    load().unload()


def test_version_and_device_are_known(
    load: Callable[..., LlamaCppInstance], tmp_path: Path
) -> None:
    instance = load(load=LoadSettings(gpu_layers=20))
    assert instance.notes == ("device: Test GPU (Vulkan0)",)
    instance.unload()
    on_cpu = load(load=LoadSettings(gpu_layers=0))
    assert on_cpu.notes == ("device: CPU",)
    on_cpu.unload()
    assert LlamaServerEngine(str(write_llama_server(tmp_path))).version == BUILD
    assert LlamaServerEngine(str(write_llama_server(tmp_path, "old"))).version == "b4567-0f1d2c3"
    packaged = write_llama_server(tmp_path, "packaged")
    assert LlamaServerEngine(str(packaged)).version == "0.6.0-dev"


# --- a server that breaks


@pytest.mark.parametrize(
    ("behaviour", "verdict", "words"),
    [
        ("crashes at load", Verdict.CRASHED, "killed by SIGSEGV"),
        ("fails at load", Verdict.ENGINE_ERROR, "refused to load without a reason"),
        ("hangs at load", Verdict.TIMEOUT, "no progress for 2 s while loading"),
        ("logs endlessly", Verdict.TIMEOUT, "no progress for 2 s while loading"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals on Windows")
def test_a_server_that_breaks_while_it_loads_is_named(
    load: Callable[..., LlamaCppInstance],
    tmp_path: Path,
    behaviour: str,
    verdict: Verdict,
    words: str,
) -> None:
    hangs = verdict is Verdict.TIMEOUT
    with pytest.raises(Failure) as failure:
        load(behaviour, load_timeout=2.0 if hangs else PATIENCE, logs=tmp_path / "logs")
    assert (failure.value.verdict, failure.value.phase) == (verdict, "load")
    assert words in failure.value.text
    (log,) = (tmp_path / "logs").iterdir()
    assert str(log) in failure.value.text
    assert descendants() == []


@pytest.mark.parametrize(
    ("behaviour", "verdict", "words"),
    [
        ("crashes in prediction", Verdict.CRASHED, "killed by SIGSEGV"),
        ("hangs in prediction", Verdict.TIMEOUT, "no progress for 2 s while answering"),
        ("prints junk in prediction", Verdict.ENGINE_ERROR, "unexpected answer"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals on Windows")
def test_a_server_that_breaks_while_it_answers_is_named(
    load: Callable[..., LlamaCppInstance], behaviour: str, verdict: Verdict, words: str
) -> None:
    hangs = verdict is Verdict.TIMEOUT
    instance = load(behaviour, reply_timeout=2.0 if hangs else PATIENCE)
    with pytest.raises(Failure) as failure:
        instance.complete("2 + 3 =", max_tokens=1)
    assert failure.value.verdict is verdict
    assert words in failure.value.text
    instance.unload()
    assert descendants() == []


def test_a_smaller_context_than_asked_is_read_back(load: Callable[..., LlamaCppInstance]) -> None:
    pytest.importorskip("xllamacpp")
    instance = load("grants half", load=LoadSettings(threads=1))
    assert instance.context_length == 256
    instance.unload()


# --- servers that outlive their owner


def test_the_server_of_an_exited_owner_is_ended_and_no_other(
    load: Callable[..., LlamaCppInstance],
) -> None:
    ours, left = load(owner="me"), load(owner="exited")
    engine = LlamaServerEngine()
    assert engine.sweep(lambda owner: False) == []
    assert len(engine.sweep(lambda owner: owner == "exited")) == 1
    assert ours.count_tokens("a b c") == 3
    with pytest.raises(Failure, match=r"SIGKILL|exit status"):
        left.count_tokens("a b c")
    ours.unload()
    left.unload()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next run ends it")
def test_the_server_exits_with_its_supervisor(load: Callable[..., LlamaCppInstance]) -> None:
    instance = load()
    supervisor = instance._child._tree[0]
    servers = supervisor.children(recursive=True)
    supervisor.kill()
    assert not psutil.wait_procs(servers, timeout=PATIENCE)[1]
    instance.unload()


def test_a_script_that_starts_the_server_ends_with_it(
    tmp_path: Path, load: Callable[..., LlamaCppInstance]
) -> None:
    inner = write_llama_server(tmp_path, "gpu", name="inner")
    script = tmp_path / "llama-server"
    script.write_text(f'#!/bin/sh\n"{inner}" "$@"\nexit $?\n')
    if sys.platform == "win32":
        pytest.skip("a .cmd file is such a script already")
    script.chmod(0o755)
    path = write_tiny_model(tmp_path / "m.gguf")
    model = Model(id="m", engine="llama-server", source=str(path))
    instance = LlamaServerEngine(str(script)).load(model, 512, Silent())
    processes = descendants()
    assert len(processes) == 3
    instance.unload()
    assert descendants() == []


def test_the_program_can_be_run_by_hand(tmp_path: Path) -> None:
    program = write_llama_server(tmp_path)
    asked = subprocess.run([program, "--bogus"], capture_output=True, text=True)
    assert (asked.returncode, asked.stderr.splitlines()[-1]) == (
        1,
        "error: invalid argument: --bogus",
    )
