"""Engines that run llama.cpp's server as a child process for every load."""

from __future__ import annotations

import contextlib
import json
import queue
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import httpx
from msgspec import structs

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.measured import padded
from pytest_lmstrix.core.types import LoadSettings, Model, ModelFacts
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.engines.llamacpp import child as child_program
from pytest_lmstrix.engines.llamacpp.arguments import EmbeddingLoad, embedding_load
from pytest_lmstrix.engines.llamacpp.causes import death, silence
from pytest_lmstrix.engines.llamacpp.logs import ServerLogs
from pytest_lmstrix.engines.llamacpp.server import LlamaCppInstance
from pytest_lmstrix.system.child_process import Child
from pytest_lmstrix.weights.places import find, usual_places
from pytest_lmstrix.weights.preflight import Preflight, preflight

_POLL_SECONDS = 0.1
_HAS_IT = "the engine llama-server has it"


class ChildEngine:
    """Model files, each load a child process; one model at a time on this machine."""

    name: str
    host = "local"
    _unknown_settings: ClassVar[Mapping[str, str]] = {}
    """Load setting that the engine does not have -> what to do instead."""

    def __init__(
        self,
        *,
        load_timeout: float = 600.0,
        reply_timeout: float = 120.0,
        weights: Callable[[Model], Path] | None = None,
        folders: Iterable[Path] | None = None,
        logs: Path | None = None,
    ) -> None:
        """Both time-outs are silence limits in seconds; `weights` turns a model into its file.

        `folders` are searched for models instead of the usual places; the logs of failed servers
        are kept in the folder `logs`.
        """
        self._load_timeout = load_timeout
        self._reply_timeout = reply_timeout
        self._weights = weights
        self._folders = folders
        self._logs = ServerLogs(logs)

    def models(self) -> list[ModelFacts]:
        """Return every model file in the usual places; unreadable ones are left out."""
        folders = usual_places() if self._folders is None else self._folders
        found = []
        for name, path in find(folders).items():
            with contextlib.suppress(OSError, Failure):
                found.append(preflight(path).require().facts(name=name))
        return found

    def facts(self, model: Model) -> ModelFacts | None:
        """Return the facts in the header of the model's file; `None` if unreadable.

        Weights elsewhere are fetched only for a model whose context limit is not known.
        """
        remote = model.source is not None and "://" in model.source
        if remote and model.context_limit is not None:
            return None
        try:
            found = preflight(self._file(model)).require()
            return found.facts(name=model.name, sha256=model.sha256)
        except (OSError, ValueError, Failure):
            return None  # its load raises the reason

    def fetch(self, model: Model) -> Path:
        """Download the weights of `model` if needed, and return their file."""
        return self._file(model)

    def load(self, model: Model, context_length: int, progress: Progress) -> LlamaCppInstance:
        """Load `model` with room for `context_length` tokens; see `Engine.load`."""
        for setting, instead in self._unknown_settings.items():
            if getattr(model.load, setting) is not None:
                text = f"{self.name} has no setting '{setting}'; {instead}"
                raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="load")
        self._check_host(model)
        found = preflight(self._file(model)).require()
        try:
            return self._load(found, model, context_length, progress)
        except Failure as failure:
            if not _needs_no_template(failure, model):
                raise
            # llama.cpp does not load a model with a damaged template, which completions never use.
            return self._load(found, model, context_length, progress, template_error=failure)

    def close(self) -> None:
        """Nothing outlives its instance."""

    def _check_host(self, model: Model) -> None:
        """Raises:
        Failure: This machine cannot load `model` with its settings.
        """

    def _configuration(
        self,
        path: Path,
        context_length: int,
        load: LoadSettings,
        *,
        api_key: str,
        replace_chat_template: bool,
        embedding: EmbeddingLoad | None,
    ) -> Mapping[str, object]:
        """Return the configuration of the child process, see `child`."""
        raise NotImplementedError

    def _notes(self, load: LoadSettings) -> tuple[str, ...]:
        """Return what a person should know of a load, see `Instance.notes`."""
        return ()

    def _load(
        self,
        found: Preflight,
        model: Model,
        context_length: int,
        progress: Progress,
        *,
        template_error: Failure | None = None,
    ) -> LlamaCppInstance:
        """Load a model, with another chat template if its own has a `template_error`."""
        api_key = secrets.token_urlsafe(32)
        embeds = model.type == "embedding"
        embedding = embedding_load(found.pooling_type) if embeds else None
        configuration = self._configuration(
            found.path,
            context_length,
            model.load,
            api_key=api_key,
            replace_chat_template=template_error is not None,
            embedding=embedding,
        )
        child = Child(
            [sys.executable, "-P", child_program.__file__],
            json.dumps(configuration).encode() + b"\n",
        )
        keep_log = partial(self._keep_log, child, f"{model.id}-{context_length}")
        try:
            address = self._address(child, found, progress)
            client = httpx.Client(
                base_url=address,
                headers={"Authorization": f"Bearer {api_key}"},
                timeout=self._reply_timeout,
                # The server closes idle connections, which is a race for whoever keeps them.
                limits=httpx.Limits(max_keepalive_connections=0),
                trust_env=False,  # no proxy for connections to this machine
            )
            return LlamaCppInstance(
                child,
                client,
                found.path,
                progress,
                template_error,
                keep_log=keep_log,
                notes=(*self._notes(model.load), *_pooling_notes(embedding)),
                # With one cache for all slots, the server reports all of it for each of them.
                most_context=padded(context_length) if model.load.requests > 1 else None,
            )
        except Failure as failure:
            child.end()
            if template_error is None and _needs_no_template(failure, model):
                raise
            raise keep_log(failure) from failure.__cause__
        except BaseException:
            child.end()
            raise

    def _keep_log(self, child: Child, name: str, failure: Failure) -> Failure:
        return self._logs.keep(failure, child.log(), name)

    def _file(self, model: Model) -> Path:
        if model.source is None:
            folders = usual_places() if self._folders is None else self._folders
            path = find(folders).get(model.name)
            if path is None:
                raise _not_found(f"no file of that name in {', '.join(map(str, folders))}")
            return path
        return self._weights(model) if self._weights is not None else Path(model.source)

    def _address(self, child: Child, model: Preflight, progress: Progress) -> str:
        """Wait until the model is loaded, and return the server's address."""
        seen, since = child.activity(), time.monotonic()
        while True:
            try:
                line = child.lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                line = b""
            if line is None:
                raise death(child, model.path, phase="load")
            if line:
                progress(1.0)
                return str(json.loads(line)["address"])
            if (now := child.activity()) != seen:
                seen, since = now, time.monotonic()
                # The share of the weights that is in memory: llama.cpp reports nothing better.
                progress(min(0.99, (child.peak_memory_bytes or 0) / max(1, model.size_bytes or 0)))
            elif time.monotonic() - since > self._load_timeout:
                raise silence(self._load_timeout, "loading", "load")


def _pooling_notes(embedding: EmbeddingLoad | None) -> tuple[str, ...]:
    if embedding is None or not embedding.takes_mean:
        return ()
    return ("pooling: the file does not name one, so a vector is the mean of its tokens",)


def _needs_no_template(failure: Failure, model: Model) -> bool:
    """Whether `model` can be asked in spite of the `failure` of its chat template."""
    return failure.verdict is Verdict.TEMPLATE_ERROR and model.prompts != "chat"


def _not_found(reason: str) -> Failure:
    return Failure(reason, verdict=Verdict.MODEL_NOT_FOUND, phase="load")


class LlamaCppEngine(ChildEngine):
    """The embedded llama.cpp, of `xllamacpp`."""

    name = "llamacpp"
    _unknown_settings: ClassVar[Mapping[str, str]] = {
        "gpu_offload": "'gpu_layers' is the number of layers to keep on the GPU",
        "tensor_split": _HAS_IT,
        "n_cpu_moe": _HAS_IT,
        "extra_args": _HAS_IT,
    }

    @cached_property
    def version(self) -> str:
        """Raises:
        PackageNotFoundError: `xllamacpp` is not installed.
        """
        return version("xllamacpp")

    def _configuration(
        self,
        path: Path,
        context_length: int,
        load: LoadSettings,
        *,
        api_key: str,
        replace_chat_template: bool,
        embedding: EmbeddingLoad | None,
    ) -> Mapping[str, object]:
        return child_program.configuration(
            path,
            context_length,
            structs.asdict(load),
            api_key=api_key,
            replace_chat_template=replace_chat_template,
            embedding=None if embedding is None else structs.asdict(embedding),
        )
