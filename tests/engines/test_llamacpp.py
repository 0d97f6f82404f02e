"""llama.cpp as a child process, embedded or the user's program: real processes and models."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from msgspec import Struct
from msgspec.structs import replace

pytest.importorskip("xllamacpp")

import httpx

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LoadSettings, Message, Model, Prompts
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp import child
from pytest_lmstrix.engines.llamacpp.engine import ChildEngine, LlamaCppEngine
from pytest_lmstrix.engines.llamacpp.own_binary import LlamaServerEngine
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from pytest_lmstrix.probes.questions import FULL, HELLO, ask, grade
from tests.standin import weights
from tests.standin.gguf_bytes import write_split
from tests.standin.llama_server.program import llama_server
from tests.standin.tiny_models import write_tiny_model

FEW_SHOT = "1 + 1 = 2\n4 + 4 = 8\n6 + 3 = 9\n2 + 3 ="
PATIENCE = 60.0
"""Seconds that a busy machine may take for an immediate action."""

signals = pytest.mark.skipif(sys.platform == "win32", reason="there are no signals on Windows")


class Recorder:
    """A `Progress` that records reports, and calls a hook at the first of either kind."""

    def __init__(
        self,
        on_load: Callable[[], object] | None = None,
        on_prefill: Callable[[], object] | None = None,
    ) -> None:
        self.loads: list[float] = []
        self.prefills: list[tuple[int, int]] = []
        self._on_load = on_load
        self._on_prefill = on_prefill

    def __call__(self, fraction: float, /) -> None:
        self.loads.append(fraction)
        if self._on_load is not None and len(self.loads) == 1:
            self._on_load()

    def prefill(self, done: int, total: int) -> None:
        self.prefills.append((done, total))
        if self._on_prefill is not None and len(self.prefills) == 1:
            self._on_prefill()


class ModelLoader(Struct, frozen=True):
    """An engine and its processes."""

    engine: ChildEngine
    known: frozenset[psutil.Process]
    start: Callable[..., ChildEngine]
    """Make another engine of its kind."""

    def load(
        self,
        context_length: int = 512,
        progress: Recorder | None = None,
        *,
        source: Path | None = None,
        load: LoadSettings | None = None,
        prompts: Prompts = "completion",
    ) -> LlamaCppInstance:
        # One thread: several are very slow when other tests run at the same time.
        model = Model(
            id="smollm2",
            engine=self.engine.name,
            source=str(source or weights.smollm2()),
            load=load or LoadSettings(threads=1, batch_size=64),
            prompts=prompts,
        )
        return self.engine.load(model, context_length, progress or Recorder())

    def processes(self) -> list[psutil.Process]:
        """Supervisors and servers."""
        return [p for p in psutil.Process().children(recursive=True) if p not in self.known]

    def server(self) -> psutil.Process:
        """Wait for the server process itself, the innermost child."""
        words = {"serve", "--model"}
        return until(lambda: [p for p in self.processes() if words & set(arguments(p))])[0]


def arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def until(ask: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """Poll until there is an answer."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.01)
    raise AssertionError("nothing came")


@pytest.fixture(scope="module", params=["llamacpp", "llama-server"])
def start(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., ChildEngine]:
    """Makes an engine: the embedded one, or one with the user's program."""
    if request.param == "llamacpp":
        return LlamaCppEngine
    return partial(LlamaServerEngine, str(llama_server(tmp_path_factory.mktemp("bin"))))


@pytest.fixture(scope="module")
def shared(start: Callable[..., ChildEngine]) -> Iterator[LlamaCppInstance]:
    """An instance of 2,048 tokens shared by tests that do not change it."""
    instance = ModelLoader(start(), frozenset(), start).load(2048)
    yield instance
    instance.unload()


@pytest.fixture
def loader(shared: LlamaCppInstance, start: Callable[..., ChildEngine]) -> Iterator[ModelLoader]:
    """A new engine; afterwards none of its processes is left."""
    known = frozenset(psutil.Process().children(recursive=True))
    loader = ModelLoader(start(load_timeout=PATIENCE, reply_timeout=PATIENCE), known, start)
    yield loader
    assert loader.processes() == []


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=PATIENCE)[1]


# --- granted contexts and facts


@pytest.mark.parametrize(("asked", "granted"), [(512, 512), (600, 768), (16_384, 8_192)])
def test_the_granted_context_is_read_back(loader: ModelLoader, asked: int, granted: int) -> None:
    instance = loader.load(asked)
    assert instance.context_length == granted
    instance.unload()


def test_facts_are_read_from_the_file_header() -> None:
    path = str(weights.smollm2())
    facts = LlamaCppEngine().facts(Model(id="tiny", engine="llamacpp", source=path))
    assert facts is not None
    assert (facts.id, facts.type, facts.architecture) == ("tiny", "llm", "llama")
    assert (facts.context_limit, facts.size_bytes, facts.quantization) == (8192, 98362432, "Q4_1")
    assert facts.fingerprint == f"size:98362432 path:{path}"


def test_remote_weights_with_declared_facts_are_not_downloaded() -> None:
    fetched: list[Model] = []

    def fetch(model: Model) -> Path:
        fetched.append(model)
        return weights.smollm2()

    engine = LlamaCppEngine(weights=fetch)
    model = Model(id="far", engine="llamacpp", source="https://example.org/a.gguf")
    assert engine.facts(replace(model, context_limit=8192)) is None
    assert fetched == []
    facts = engine.facts(model)
    assert facts is not None
    assert facts.context_limit == 8192


def test_a_model_without_a_source_is_found_by_file_name(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").symlink_to(weights.smollm2())
    engine = LlamaCppEngine(folders=[tmp_path])
    assert [facts.id for facts in engine.models()] == ["tiny"]
    tiny = Model(id="tiny", engine="llamacpp", load=LoadSettings(threads=1))
    engine.load(tiny, 512, Recorder()).unload()
    with pytest.raises(Failure) as failure:
        engine.load(Model(id="missing", engine="llamacpp"), 512, Recorder())
    assert failure.value.verdict is Verdict.MODEL_NOT_FOUND


def test_load_progress_stays_below_one_until_loaded(loader: ModelLoader) -> None:
    progress = Recorder()
    loader.load(512, progress).unload()
    assert progress.loads[-1] == 1.0
    assert all(0 <= fraction < 1 for fraction in progress.loads[:-1])


def test_load_settings_reach_llama_cpp(loader: ModelLoader) -> None:
    sizes = {}
    for kind in ("f32", "q8_0"):
        load = LoadSettings(threads=1, kv_cache_type=kind, flash_attention=True)
        instance = loader.load(8192, load=load)
        sizes[kind] = instance.peak_memory_bytes or 0
        instance.unload()
    # 2 * 30 layers * 8,192 tokens * 3 heads * 64 values: 4 bytes each, and 34/32.
    assert sizes["f32"] - sizes["q8_0"] > 200e6


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        pytest.param(LoadSettings(gpu_offload=0.5), "gpu_layers", id="setting of another engine"),
        pytest.param(
            LoadSettings(kv_cache_type="q8_0", flash_attention=False), "flash_attn", id="at odds"
        ),
    ],
)
def test_an_unsupported_setting_is_an_error(
    loader: ModelLoader, load: LoadSettings, reason: str
) -> None:
    with pytest.raises(Failure, match=reason) as failure:
        loader.load(load=load)
    assert failure.value.verdict is Verdict.ENGINE_ERROR


# --- files that do not load


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


# --- chat templates

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


# --- replies


def test_a_completion_is_measured(shared: LlamaCppInstance) -> None:
    prompt = "The river ran by the mill. " * 30
    reply = shared.complete(prompt + FEW_SHOT, max_tokens=4)
    assert reply.text.split()[0] == "5"
    assert reply.stop_reason == "length"
    assert reply.completion_tokens == 4
    assert reply.prompt_tokens == shared.count_tokens(prompt + FEW_SHOT) + shared.special_tokens
    assert (reply.ttft_seconds or 0) > 0
    assert (reply.prefill_tokens_per_second or 0) > 0
    assert (reply.decode_tokens_per_second or 0) > 0
    assert shared.complete(prompt + FEW_SHOT, max_tokens=4).text == reply.text


def test_a_shared_prefix_is_processed_once(shared: LlamaCppInstance) -> None:
    prefix = "A tale of three ships and a lighthouse. " * 20
    first = shared.complete(prefix + "The first", max_tokens=1)
    second = shared.complete(prefix + "Another", max_tokens=1)
    assert second.prompt_tokens is not None
    assert second.cached_prompt_tokens is not None
    assert second.cached_prompt_tokens > (first.cached_prompt_tokens or 0)
    assert second.prompt_tokens - second.cached_prompt_tokens < 10


def test_prefill_progress_is_reported_per_batch(loader: ModelLoader) -> None:
    progress = Recorder()
    instance = loader.load(512, progress)
    total = instance.complete("word " * 300, max_tokens=1).prompt_tokens
    instance.unload()
    assert total is not None
    assert progress.prefills[-1] == (total, total)
    done = [tokens for tokens, _ in progress.prefills]
    assert done == sorted(done)
    assert len(set(done)) >= 300 // 64


def test_a_chat_uses_the_template(shared: LlamaCppInstance) -> None:
    reply = shared.chat([Message(role="user", content="Say hello.")], max_tokens=12)
    assert reply.text
    assert reply.reasoning == ""
    assert (reply.prompt_tokens or 0) > shared.count_tokens("Say hello.")
    assert shared.chat([Message(role="user", content="Say hello.")], max_tokens=12).text == (
        reply.text
    )


def test_an_overlong_prompt_is_refused_and_the_instance_stays_usable(
    shared: LlamaCppInstance,
) -> None:
    with pytest.raises(Failure) as failure:
        shared.complete("word " * 3000, max_tokens=1)
    assert failure.value.verdict is Verdict.CONTEXT_TOO_LARGE
    assert failure.value.code == "exceed_context_size_error"
    assert shared.complete(FEW_SHOT, max_tokens=2).text.split()[0] == "5"


def test_a_reply_stops_at_the_context_limit(loader: ModelLoader) -> None:
    instance = loader.load(256)
    prompt = "one two " * 120
    free = 256 - instance.count_tokens(prompt)
    reply = instance.complete(prompt, max_tokens=1000)
    instance.unload()
    assert reply.stop_reason == "length"
    assert 0 < (reply.completion_tokens or 0) <= free + 1


@pytest.mark.parametrize(
    "text", ["a\u2028b\x85c\x0bd\x1ce", "data: [DONE]\n\nerror: {}", "\0", "🎉" * 9]
)
def test_any_text_is_transmitted_unchanged(shared: LlamaCppInstance, text: str) -> None:
    # The server repeats the prompt in its answer, unescaped.
    reply = shared.complete(text + FEW_SHOT, max_tokens=1)
    assert reply.prompt_tokens == shared.count_tokens(text + FEW_SHOT) + shared.special_tokens


# --- safety


def test_the_server_listens_on_loopback_and_requires_its_key(loader: ModelLoader) -> None:
    instance = loader.load()
    (listening,) = (c for c in loader.server().net_connections("tcp") if c.status == "LISTEN")
    assert listening.laddr.ip == "127.0.0.1"
    base = f"http://127.0.0.1:{listening.laddr.port}"
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        reply = httpx.post(
            f"{base}/completion",
            json={"prompt": "a", "n_predict": 1},
            headers=headers,
            trust_env=False,
        )
        assert reply.status_code == 401
    instance.unload()


def test_the_key_is_not_in_the_process_list(loader: ModelLoader) -> None:
    instance = loader.load()
    key = instance._client.headers["Authorization"].removeprefix("Bearer ")
    assert len(key) >= 32
    for process in loader.processes():
        assert key not in " ".join(process.cmdline())
        if loader.engine.name == "llamacpp":
            *_, script = (argument for argument in process.cmdline() if argument != "serve")
            assert script == child.__file__
            assert len(process.cmdline()) <= 4
    instance.unload()


def test_proxies_are_not_used(loader: ModelLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    instance = loader.load()
    assert instance.count_tokens("a b c") == 3
    instance.unload()


# --- unload, crashes and interrupts


def test_unload_ends_every_process_and_is_idempotent(loader: ModelLoader) -> None:
    instance = loader.load()
    processes = loader.processes()
    assert len(processes) >= 2
    assert (instance.peak_memory_bytes or 0) > 90e6
    instance.unload()
    assert not any(process.is_running() for process in processes)
    instance.unload()
    assert (instance.peak_memory_bytes or 0) > 90e6
    with pytest.raises(Failure, match="unloaded"):
        instance.complete("a", max_tokens=1)


def test_an_engine_does_not_keep_models_of_another_alive(loader: ModelLoader) -> None:
    first, second = loader.load(), loader.load()
    first.unload()
    left = loader.processes()
    assert second.count_tokens("a b c") == 3
    second.unload()
    assert gone(left)


@signals
def test_a_killed_server_is_a_crash_with_its_exit_status(loader: ModelLoader) -> None:
    progress = Recorder(on_prefill=lambda: loader.server().kill())
    instance = loader.load(512, progress)
    with contextlib.suppress(Failure):
        instance.complete("word " * 600, max_tokens=1)  # the refused connection is not the cause
    with pytest.raises(Failure, match="SIGKILL") as failure:
        instance.complete("word " * 400, max_tokens=1)
    assert failure.value.verdict is Verdict.CRASHED
    assert (failure.value.exit_status, failure.value.phase) == (-9, "predict")
    assert "exceeds the available" not in failure.value.text
    with pytest.raises(Failure, match="SIGKILL"):
        instance.count_tokens("a")
    instance.unload()


@signals
def test_a_server_killed_while_it_loads_is_a_crash(loader: ModelLoader) -> None:
    progress = Recorder(on_load=lambda: loader.server().kill())
    with pytest.raises(Failure, match="SIGKILL") as failure:
        loader.load(8192, progress)
    assert failure.value.verdict is Verdict.CRASHED
    assert (failure.value.exit_status, failure.value.phase) == (-9, "load")


@signals
def test_the_log_of_a_server_that_failed_is_kept_and_named(
    loader: ModelLoader, tmp_path: Path
) -> None:
    engine = loader.start(load_timeout=PATIENCE, reply_timeout=PATIENCE, logs=tmp_path)
    loader = replace(loader, engine=engine)
    loader.load(512).unload()
    assert list(tmp_path.iterdir()) == []

    at_odds = LoadSettings(kv_cache_type="q8_0", flash_attention=False)
    with pytest.raises(Failure, match="flash_attn") as at_load:
        loader.load(8192, load=at_odds)
    instance = loader.load(512, Recorder(on_prefill=lambda: loader.server().kill()))
    with pytest.raises(Failure) as at_work:
        instance.complete("word " * 400, max_tokens=1)
    instance.unload()
    named = [Path(each.value.text.rpartition("\nlog: ")[2]) for each in (at_load, at_work)]
    assert sorted(tmp_path.iterdir()) == named
    assert "smollm2-8192" in named[0].name
    assert "flash_attn" in named[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("which", ["server", "supervisor"])
def test_a_hung_reply_times_out_and_leaves_no_process(loader: ModelLoader, which: str) -> None:
    def hang() -> None:
        for process in loader.processes() if which == "supervisor" else [loader.server()]:
            process.suspend()

    loader = replace(loader, engine=loader.start(load_timeout=PATIENCE, reply_timeout=2.0))
    instance = loader.load(512, Recorder(on_prefill=hang), load=LoadSettings(threads=1))
    with pytest.raises(Failure, match=r"no progress for 2 s while answering") as failure:
        instance.complete("word " * 500, max_tokens=1)
    assert failure.value.verdict is Verdict.TIMEOUT
    assert loader.processes() == []


def test_a_hung_load_times_out_and_leaves_no_process(loader: ModelLoader) -> None:
    progress = Recorder(on_load=lambda: loader.server().suspend())
    loader = replace(loader, engine=loader.start(load_timeout=1.0))
    with pytest.raises(Failure, match="no progress for 1 s while loading") as failure:
        loader.load(512, progress)
    assert failure.value.verdict is Verdict.TIMEOUT


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupt_leaves_no_process(loader: ModelLoader) -> None:
    with pytest.raises(KeyboardInterrupt):
        loader.load(512, Recorder(on_load=_interrupt))
    assert loader.processes() == []
    instance = loader.load(512, Recorder(on_prefill=_interrupt))
    with pytest.raises(KeyboardInterrupt):
        instance.complete("word " * 300, max_tokens=1)
    assert loader.processes() == []


@signals
def test_ctrl_c_does_not_reach_the_server(loader: ModelLoader) -> None:
    instance = loader.load()
    for process in loader.processes():
        if sys.platform != "win32":
            assert os.getsid(process.pid) != os.getsid(0)
        if child.__file__ in process.cmdline():  # others are programs that end by it
            process.send_signal(2)
    assert instance.count_tokens("a b c") == 3
    instance.unload()


PARENT = """
import sys
from pytest_lmstrix.engines.llamacpp.engine import LlamaCppEngine
from pytest_lmstrix.engines.llamacpp.own_binary import LlamaServerEngine
from pytest_lmstrix.core.types import LoadSettings, Model

class Progress:
    def __call__(self, fraction):
        print("loading", flush=True)
    def prefill(self, done, total):
        print("replying", flush=True)

model = Model(
    id="tiny", engine="llamacpp", source=sys.argv[1], load=LoadSettings(threads=1, batch_size=64)
)
engine = LlamaServerEngine(sys.argv[2]) if sys.argv[2:] else LlamaCppEngine()
instance = engine.load(model, 2048, Progress())
instance.complete("word " * 2000, max_tokens=1)
"""


@pytest.mark.parametrize("moment", ["starting", "loading", "replying"])
def test_the_server_exits_with_its_parent(loader: ModelLoader, moment: str) -> None:
    program = getattr(loader.start, "args", ())
    command = [sys.executable, "-c", PARENT, str(weights.smollm2()), *program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = loader.server()
        if moment != "starting":
            while parent.stdout.readline().strip() != moment:
                assert parent.poll() is None
        descendants = psutil.Process(parent.pid).children(recursive=True)
        if moment == "loading":
            # A load holds the interpreter lock, so no thread of the server could end it.
            server.suspend()
        parent.kill()
    assert server in descendants
    assert gone(descendants)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_a_forked_child_does_not_keep_the_server_alive(loader: ModelLoader) -> None:
    # It holds the other end of the server's pipe, so there is no end of file.
    fork = "import os, time\nif os.fork() == 0: time.sleep(600)\n"
    parent_code = PARENT.replace("instance.complete", fork + "instance.complete")
    program = getattr(loader.start, "args", ())
    command = [sys.executable, "-c", parent_code, str(weights.smollm2()), *program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        while parent.stdout.readline().strip() != "replying":
            assert parent.poll() is None
        descendants = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        (fork_of_it,) = (p for p in descendants if PARENT[:20] in " ".join(arguments(p)))
        assert gone([p for p in descendants if p != fork_of_it])
        fork_of_it.kill()
