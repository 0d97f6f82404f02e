"""The engine `llama-server` at a host: a running router, whose presets have a section a size."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from msgspec import structs

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ModelFacts
from pytest_lmstrix.core.verdicts import Phase, Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.llamacpp.router.client import RouterClient, Section
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from pytest_lmstrix.system.child_process import describe_exit
from pytest_lmstrix.system.load_notes import LoadNote, LoadNotes

_log = logging.getLogger(__name__)

_CONFIRM_SECONDS = 30.0
"""Time limit for the router to end a server whose unload it has accepted."""
_POLL_SECONDS = 0.1
_REFUSED = 1


class LlamaRouterEngine:
    """A router at `host`, such as `llama-server+http://127.0.0.1:8080`.

    Its context lengths are those of its presets: the section `qwen-8192` with that `ctx-size`
    serves the model `qwen` up to 8,192 tokens. What another client has loaded is left alone.
    """

    name = "llama-server"

    def __init__(
        self,
        host: str,
        *,
        load_timeout: float = 600.0,
        reply_timeout: float = 120.0,
        owner: str | None = None,
        confirm_seconds: float = _CONFIRM_SECONDS,
        notes: Path | None = None,
        notify: Callable[[str], None] = _log.warning,
    ) -> None:
        """`notes` is the folder that records what is loaded, for the sweep of a later run."""
        url = host.partition("+")[2]
        self.host = urlsplit(url).netloc
        self._client = RouterClient(url)
        self._load_timeout = load_timeout
        self._reply_timeout = reply_timeout
        self._owner = owner or "unowned"
        self._confirm_seconds = confirm_seconds
        self._notes = LoadNotes(f"llama-server {self.host}", notes)
        self._notify = notify
        self._open: dict[Path, LoadNote] = {}
        """What this process has loaded, and has not seen unloaded."""

    @cached_property
    def version(self) -> str | None:
        """Build and commit of the router; `None` if unknown."""
        with suppress(Failure):
            return self._client.properties("connect").build_info
        return None

    def models(self) -> list[ModelFacts]:
        """Return the models of its presets, sections of several sizes as one.

        Raises:
            Failure: It does not answer, or is not a router.
        """
        self._client.properties("connect")
        sections = self._client.sections("connect").values()
        by_model: dict[str, list[Section]] = {}
        for section in sections:
            by_model.setdefault(section.model_id, []).append(section)
        return [_facts(name, found) for name, found in by_model.items()]

    def load(self, model: Model, context_length: int, progress: Progress) -> LlamaCppInstance:
        """Load the smallest section of `model` that has room; see `Engine.load`."""
        given = [name for name, value in structs.asdict(model.load).items() if value is not None]
        if given:
            text = f"a router has the load settings of its presets, and so no {given[0]!r}"
            raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="load")
        for path in list(self._open):
            self.unload(path)
        most = self._client.properties("load").max_instances
        sections = self._client.sections("load")
        try:
            section = _choose(model, context_length, sections.values())
        except Failure:
            # To read the presets again ends the models whose sections have changed.
            if any(each.is_running for each in sections.values()):
                raise
            sections = self._client.sections("load", reload=True)
            section = _choose(model, context_length, sections.values())
        self._check_free(section, sections, most)
        path = self._note(section)
        try:
            self._client.load(section.id)
            self._wait(section.id, path)
            progress(1.0)
            return self._attach(path, progress)
        except BaseException:
            self._abandon(path)
            raise

    def others(self) -> dict[str, int | None]:
        """Return the models in memory that other clients have loaded; their sizes are unknown."""
        own = {note.model for note in self._open.values()}
        sections = self._client.sections("load").values()
        return {each.id: None for each in sections if each.is_running and each.id not in own}

    def check_held(self, path: Path, phase: Phase) -> None:
        """Check that a model is still in memory as it was loaded.

        Raises:
            Failure: Its server has ended, or another client has unloaded it.
        """
        note = self._open.get(path)
        if note is None:
            raise Failure("the model is unloaded", verdict=Verdict.ENGINE_ERROR, phase=phase)
        section = self._client.sections(phase).get(note.model)
        if section is not None and section.is_running and section.instance == note.instance:
            return
        self._forget(path)
        if section is not None and section.status.failed:
            raise _ended(section, phase)
        text = f"another client has unloaded {note.model} from the router at {self.host}"
        raise Failure(text, verdict=Verdict.HOST_TROUBLE, phase=phase)

    def unload(self, path: Path) -> None:
        """Unload a model of ours, and wait until the router has ended its server; idempotent.

        Raises:
            Failure: The router refuses, or its server runs on.
        """
        note = self._open.get(path)
        if note is not None:
            self._unload(note)
            self._forget(path)

    def sweep(self, is_dead: Callable[[str], bool]) -> list[str]:
        """Unload what owners have loaded for whom `is_dead` is true; return the names.

        Raises:
            Failure: The router does not answer, or keeps one of them.
        """
        return self._notes.sweep(is_dead, self._unload_left)

    def _unload_left(self, path: Path, note: LoadNote) -> bool:
        if self._running(note, "connect") is None:
            return False
        self._unload(note)
        return True

    def close(self) -> None:
        """Unload all that is left."""
        for path, note in list(self._open.items()):
            try:
                self.unload(path)
            except Failure:
                self._notify(f"the router at {self.host} may still have {note.model} loaded")
        self._open.clear()
        self._client.close()

    def _check_free(self, wanted: Section, sections: Mapping[str, Section], most: int) -> None:
        running = [each.id for each in sections.values() if each.is_running]
        text = ""
        if wanted.is_running:
            text = f"another client has {wanted.id} loaded in the router at {self.host}"
        elif most and len(running) >= most:
            text = (
                f"the router at {self.host} has room for {most} models, which other clients have"
                f" loaded: {', '.join(running)}; another load would unload one of them"
            )
        if text:
            raise Failure(f"{text}; unload it there", verdict=Verdict.HOST_TROUBLE, phase="load")

    def _wait(self, section_id: str, path: Path) -> None:
        deadline = time.monotonic() + self._load_timeout
        while True:
            section = self._client.sections("load").get(section_id)
            if section is None or section.status.failed:
                raise _ended(section, "load")
            if section.instance != self._open[path].instance:
                self._note(section, path)
            if section.status.value == "loaded":
                return
            if time.monotonic() >= deadline:
                text = f"timed out: not loaded within {self._load_timeout:g} s"
                raise Failure(text, verdict=Verdict.TIMEOUT, phase="load")
            time.sleep(_POLL_SECONDS)

    def _attach(self, path: Path, progress: Progress) -> LlamaCppInstance:
        section = self._open[path].model
        client = httpx.Client(
            base_url=self._client.url,
            headers=self._client.headers,
            params={"model": section, "autoload": "false"},
            timeout=self._reply_timeout,
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        )
        return RouterInstance(self, path, client, section, progress)

    def _running(self, note: LoadNote, phase: Phase) -> Section | None:
        """Return the section of a note if that very load is in memory."""
        section = self._client.sections(phase).get(note.model)
        if section is None or not section.is_running or not note.instance:
            return None
        return section if section.instance == note.instance else None

    def _unload(self, note: LoadNote) -> None:
        if self._running(note, "unload") is None:
            return
        self._client.unload(note.model)
        deadline = time.monotonic() + self._confirm_seconds
        while self._running(note, "unload") is not None:
            if time.monotonic() >= deadline:
                text = f"the router at {self.host} still has {note.model} loaded"
                raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="unload")
            time.sleep(_POLL_SECONDS)

    def _abandon(self, path: Path) -> None:
        try:
            self.unload(path)
        except Failure as trouble:
            _log.warning("the router may have a model still loaded: %s", trouble.text)

    def _note(self, section: Section, path: Path | None = None) -> Path:
        """Note a load, or in `path` which one it has become."""
        note = LoadNote(
            host=self.host,
            model=section.id,
            context_length=section.context_length or 0,
            owner=self._owner,
            ttl_seconds=0,
            instance=section.instance if section.is_running else "",
        )
        path = self._notes.write(note, path)
        self._open[path] = note
        return path

    def _forget(self, path: Path) -> None:
        self._open.pop(path, None)
        self._notes.remove(path)


class _Routed:
    """The process of a model that the router has started, as far as it can be known."""

    peak_memory_bytes: int | None = None
    killed_for_memory = False

    def __init__(self, engine: LlamaRouterEngine, path: Path) -> None:
        self._engine = engine
        self._path = path

    def activity(self) -> tuple[int, ...]:
        return ()

    def wait(self, timeout_seconds: float, /) -> int | None:
        return None

    def log(self) -> list[str]:
        return []

    def forget_log(self) -> None:
        pass

    def end(self) -> list[int]:
        self._engine.unload(self._path)
        return []


class RouterInstance(LlamaCppInstance):
    """A model of the router; before a request it is checked that it is still the same load."""

    def __init__(
        self,
        engine: LlamaRouterEngine,
        path: Path,
        client: httpx.Client,
        section: str,
        progress: Progress,
    ) -> None:
        self._check: Callable[[Phase], None] = lambda phase: engine.check_held(path, phase)
        super().__init__(
            _Routed(engine, path), client, Path(section), progress, body={"model": section}
        )

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self._check(self._phase)
        try:
            with super()._watched():
                yield
        except Failure as failure:
            if failure.verdict is not Verdict.TIMEOUT:
                self._check(self._phase)
            raise


def _facts(name: str, sections: list[Section]) -> ModelFacts:
    sizes = [section.context_length for section in sections]
    known = [size for size in sizes if size is not None]
    return ModelFacts(
        id=name,
        type="embedding" if all(section.embeds for section in sections) else "llm",
        context_limit=max(known) if len(known) == len(sizes) else None,
    )


def _choose(model: Model, context_length: int, sections: Iterable[Section]) -> Section:
    own = [each for each in sections if model.name in (each.id, each.model_id)]
    if not own:
        text = f"the router has no section {model.name!r}"
        raise Failure(text, verdict=Verdict.MODEL_NOT_FOUND, phase="load")
    sized = [each for each in own if (each.context_length or 0) >= context_length]
    unsized = [each for each in own if each.context_length is None]
    if sized:
        return min(sized, key=lambda each: each.context_length or 0)
    if unsized:
        return unsized[0]
    most = max(each.context_length or 0 for each in own)
    text = (
        f"the router has {model.name} with {most:,} tokens at most; add a section"
        f" [{model.name}-{context_length}] with ctx-size = {context_length} to its presets"
    )
    raise Failure(text, verdict=Verdict.CONTEXT_NOT_GRANTED, phase="load")


def _ended(section: Section | None, phase: Phase) -> Failure:
    if section is None:
        text = "the router no longer has this model in its presets"
        return Failure(text, verdict=Verdict.HOST_TROUBLE, phase=phase)
    code = section.status.exit_code
    ending = f": {describe_exit(code)}" if code is not None else ""
    text = f"the llama-server of {section.id} ended{ending}; the router's log has the reason"
    if phase == "load" and code == _REFUSED:
        return Failure(text, verdict=Verdict.ENGINE_ERROR, phase=phase, exit_status=code)
    return Failure.from_engine(text, phase=phase, exit_status=code)
