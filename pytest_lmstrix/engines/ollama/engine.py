"""The engine `ollama`: models of a running Ollama, loaded only where no other client has them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ModelFacts
from pytest_lmstrix.core.verdicts import Phase, Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.ollama.address import ollama_url
from pytest_lmstrix.engines.ollama.client import OllamaClient, in_use
from pytest_lmstrix.engines.ollama.embedding import instance_of_load, load_request
from pytest_lmstrix.engines.ollama.instance import OllamaInstance, OllamaLoad
from pytest_lmstrix.engines.ollama.listing import (
    Running,
    RunningModels,
    ShownModel,
    Tag,
    Tags,
    facts_from,
    full_name,
    is_complete_tag,
    load_body,
)
from pytest_lmstrix.system.addresses import ollama_host
from pytest_lmstrix.system.load_notes import LoadNote, LoadNotes

_log = logging.getLogger(__name__)

CONFIRM_SECONDS = 30.0
"""How long Ollama may list a model after it accepted to unload it."""
ABORT_SECONDS = 2.0
"""How long an abandoned load is watched: Ollama aborts it when its client disconnects."""

_POLL_SECONDS = 0.1


class _Version(Struct):
    version: str


class _Done(Struct):
    done: bool = False
    done_reason: str | None = None


class OllamaEngine:
    """One Ollama server; `host` is `ollama://host[:port]`, by default that of `OLLAMA_HOST`.

    Ollama has one instance of a model for all its clients. So a model that another client has
    loaded is left alone, and what this engine has loaded is noted in `notes`, a folder, for the
    sweep of a later run. `load_timeout` and `reply_timeout` are the seconds of silence allowed
    while a model loads and while it prefills or answers.
    """

    name = "ollama"

    def __init__(
        self,
        host: str | None = None,
        *,
        load_timeout: float = 600.0,
        reply_timeout: float = 120.0,
        owner: str | None = None,
        confirm_seconds: float = CONFIRM_SECONDS,
        notes: Path | None = None,
        notify: Callable[[str], None] = _log.warning,
    ) -> None:
        url = (
            f"http://{ollama_host(host)}" if host else ollama_url(os.environ.get("OLLAMA_HOST", ""))
        )
        self.host = urlsplit(url).netloc
        self.load_timeout = load_timeout
        self.reply_timeout = reply_timeout
        self.client = OllamaClient(url)
        self._owner = owner or "unowned"
        self._confirm_seconds = confirm_seconds
        self._notify = notify
        self._notes = LoadNotes(self.host, notes)
        self._open: dict[Path, LoadNote] = {}
        """What this process has loaded, and has not seen unloaded."""
        self._tags: dict[str, Tag] | None = None
        self._facts: dict[str, ModelFacts] = {}

    @property
    def ttl_seconds(self) -> int:
        """Idle seconds after which Ollama itself unloads a model that was left behind.

        Longer than a model is ever idle in use, which is between two replies.
        """
        return int(max(600, 2 * self.reply_timeout))

    @cached_property
    def version(self) -> str | None:
        """The version of Ollama, such as `0.33.0`; `None` if unknown. Cached."""
        with suppress(Failure):
            return self.client.get("/api/version", _Version, phase="connect").version or None
        return None

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers; empty where it is unknown, as of builds from source."""
        numbers = (self.version or "").partition("-")[0].split(".")
        if not all(part.isascii() and part.isdigit() for part in numbers):
            return ()
        release = tuple(int(part) for part in numbers[:3])
        return release if any(release) else ()

    def models(self) -> list[ModelFacts]:
        """Return all models of this machine's Ollama, embedding models included.

        Models that are computed in the cloud are left out, with a warning.

        Raises:
            Failure: The server does not answer.
        """
        self._tags = None
        self._facts.clear()
        for tag in self._listed().values():
            if tag.remote_model:
                _log.warning("left out %r: Ollama computes it in the cloud", tag.name)
            else:
                self._facts[full_name(tag.name)] = self._facts_of(tag)
        return list(self._facts.values())

    def facts(self, model: Model) -> ModelFacts | None:
        """Return Ollama's facts of `model`, from one listing per session, or `None`."""
        name = full_name(model.name)
        if name not in self._facts:
            tag = self._listed().get(name)
            if tag is None:
                return None
            self._facts[name] = self._facts_of(tag)
        return self._facts[name]

    def _listed(self) -> dict[str, Tag]:
        if self._tags is None:
            self._tags = {}  # an unreachable server is not asked again for each model
            tags = self.client.get("/api/tags", Tags, phase="connect").models or ()
            self._tags = {full_name(tag.name): tag for tag in tags}
        return self._tags

    def _facts_of(self, tag: Tag) -> ModelFacts:
        shown = None
        if not is_complete_tag(tag):
            with suppress(Failure):  # one model that cannot be read must not hide the others
                shown = self.client.post(
                    "/api/show", {"model": tag.name}, ShownModel, phase="connect"
                )
        return facts_from(tag, shown)

    def load(self, model: Model, context_length: int, progress: Progress) -> OllamaInstance:
        """Load `model`, unless another client has loaded it.

        Raises:
            Failure: It does not load; what may have come of it is unloaded.
        """
        body = load_body(model, context_length, self.ttl_seconds)
        facts = self.facts(model)
        tag = self._listed().get(full_name(model.name))
        if tag is not None and tag.remote_model:
            text = f"{model.id} is computed in the cloud: its context cannot be set or measured"
            raise Failure(text, verdict=Verdict.UNSUPPORTED, phase="load")
        before = self._check_free(model, tag)
        path = self._note(model.name, context_length)
        url, request = load_request(model, facts, body)
        try:
            self.client.post(url, request, _Done, phase="load", silence_seconds=self.load_timeout)
            progress(1.0)
            running = self.running("load")
            ours = running.get(full_name(model.name))
            if ours is None:
                text = f"Ollama does not list {model.id} after its load"
                raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="load")
            self._note(model.name, ours.context_length or context_length, path)
            loaded = OllamaLoad(path=path, running=ours, body=body, facts=facts,
                            evicted=_evicted(before, running))  # fmt: skip
            return instance_of_load(self, model, loaded, progress)
        except BaseException as error:
            self._abandon(path, error)
            raise

    def _note(self, model_id: str, context_length: int, path: Path | None = None) -> Path:
        """Note a load, or in `path` what it was granted."""
        note = LoadNote(
            host=self.host,
            model=model_id,
            context_length=context_length,
            owner=self._owner,
            ttl_seconds=self.ttl_seconds,
        )
        path = self._notes.write(note, path)
        self._open[path] = note
        return path

    def running(self, phase: Phase) -> dict[str, Running]:
        """Return the models in memory, by their full names."""
        models = self.client.get("/api/ps", RunningModels, phase=phase).models or ()
        return {full_name(each.name): each for each in models}

    def others(self) -> dict[str, int | None]:
        """Return the size in bytes of each model in memory that other clients have loaded."""
        own = {full_name(note.model) for note in self._open.values()}
        return {each.name: each.size for name, each in self.running("load").items()
                if name not in own}  # fmt: skip

    def _check_free(self, model: Model, tag: Tag | None) -> dict[str, Running]:
        """Return the models in memory, of which `model` is none.

        Raises:
            Failure: Another client has loaded it, or its unload was never confirmed.
        """
        for path in list(self._open):
            self.unload(path)
        running = self.running("load")
        for name, each in running.items():
            same_file = tag is not None and tag.digest is not None and each.digest == tag.digest
            if name == full_name(model.name) or same_file:
                size = f" with {each.context_length:,} tokens" if each.context_length else ""
                text = (
                    f"another client has {each.name} loaded in Ollama at {self.host}{size}, and to"
                    f" load it again would replace that: `ollama stop {each.name}` unloads it"
                )
                raise in_use(text, "load")
        return running

    def check_held(self, path: Path) -> None:
        """Check before a request that the model is still in memory as it was loaded.

        Raises:
            Failure: Another client has unloaded it, or loaded it with another context.
        """
        note = self._open.get(path)
        if note is None:
            text = "another client has unloaded the model"
            raise in_use(text, "predict")
        running = self.running("predict").get(full_name(note.model))
        if running is not None and _is_as_noted(running, note):
            self._notes.refresh(path)
            return
        self._forget(path)
        text = f"another client has unloaded {note.model} from Ollama at {self.host}"
        if running is not None:
            text = (
                f"another client has loaded {note.model} again in Ollama at {self.host}, with"
                f" {running.context_length:,} tokens instead of {note.context_length:,}"
            )
        raise in_use(text, "predict")

    def unload(self, path: Path) -> None:
        """Unload a model of ours and wait until it is no longer listed; idempotent.

        Raises:
            Failure: Ollama refuses, or goes on listing it.
        """
        note = self._open.get(path)
        if note is not None:
            self._unload(note)
            self._forget(path)

    def _unload(self, note: LoadNote) -> None:
        deadline = None
        while True:
            running = self.running("unload").get(full_name(note.model))
            if running is None or not _is_as_noted(running, note):
                return
            if deadline is None:
                body = {"model": note.model, "keep_alive": 0, "stream": False}
                self.client.post("/api/generate", body, _Done, phase="unload")
                deadline = time.monotonic() + self._confirm_seconds
                continue  # most are gone at once
            if time.monotonic() >= deadline:
                seconds = f"{self._confirm_seconds:g} s"
                text = f"Ollama still lists {note.model} {seconds} after it accepted the unload"
                raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="unload")
            time.sleep(_POLL_SECONDS)

    def _abandon(self, path: Path, error: BaseException) -> None:
        """Unload what may have come of a failed load, even late; failures are only logged."""
        answered = isinstance(error, Failure) and error.verdict not in (
            Verdict.TIMEOUT, Verdict.UNREACHABLE,
        )  # fmt: skip
        note = self._open[path]
        deadline = time.monotonic() + (0 if answered else ABORT_SECONDS)
        try:
            while True:
                self._unload(note)
                if time.monotonic() >= deadline:
                    break
                time.sleep(_POLL_SECONDS)
            self._forget(path)
        except Failure as trouble:
            _log.warning("Ollama may have %s still loaded: %s", note.model, trouble.text)

    def _forget(self, path: Path) -> None:
        self._open.pop(path, None)
        self._notes.remove(path)

    def sweep(self, is_dead: Callable[[str], bool]) -> list[str]:
        """Unload the models whose `is_dead(owner)` is true; return their names.

        Raises:
            Failure: The server does not answer, or keeps one of them.
        """
        return self._notes.sweep(is_dead, self._unload_left)

    def _unload_left(self, path: Path, note: LoadNote) -> bool:
        running = self.running("connect").get(full_name(note.model))
        if running is None or not _is_as_noted(running, note):
            return False
        if not self._notes.may_hold(path, note):
            return False
        self._unload(note)
        return True

    def close(self) -> None:
        """Unload all that is left."""
        for path, note in list(self._open.items()):
            with suppress(Failure):
                self.unload(path)
                continue
            self._notify(
                f"Ollama at {self.host} may still have {note.model} loaded;"
                f" it will unload it after {note.ttl_seconds} idle seconds"
            )
        self._open.clear()
        self.client.close()


def _is_as_noted(running: Running, note: LoadNote) -> bool:
    """Whether a model in memory has the context that was noted, where that is reported."""
    return running.context_length in (None, 0, note.context_length)


def _evicted(before: Mapping[str, Running], after: Mapping[str, Running]) -> tuple[str, ...]:
    """Return the names of others' models that a load has driven out of memory."""
    return tuple(sorted(each.name for name, each in before.items() if name not in after))
