"""`--lmstrix-scan`: compares the models of the engines with the manifest."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model, ModelFacts
from pytest_lmstrix.engines.base import Engine, EngineOptions
from pytest_lmstrix.engines.catalog import BUILT_IN, Engines, EngineUnavailable, host_of
from pytest_lmstrix.manifest.append import model_of
from pytest_lmstrix.manifest.read import Manifest, ManifestNotFound, parse_manifest, read_bytes
from pytest_lmstrix.manifest.variants import entries_of
from pytest_lmstrix.system.addresses import engine_at, hosts_of
from pytest_lmstrix.weights.fetch import is_cached
from pytest_lmstrix.weights.places import search, usual_places
from pytest_lmstrix.weights.preflight import preflight
from pytest_lmstrix.weights.source import HubSource, LocalSource, parse_source, with_home

_FILE_ENGINES = ("llamacpp", "llama-server")
"""Engines whose models are the model files of this machine."""
_RECORDED = ("context_limit", "size_bytes", "architecture", "quantization", "capabilities",
             "source")  # fmt: skip


def manifest_so_far(path: Path, engine: str) -> Manifest:
    """Return the manifest that a scan appends to, or an empty one; `engine` is the default engine.

    Raises:
        ManifestError: It cannot be read, or is not valid.
    """
    try:
        return parse_manifest(read_bytes(path), path, engine=engine, may_be_empty=True)
    except ManifestNotFound:
        return Manifest(models=(), default_engine=engine, has_list=False, indent=2)


class Answer(Struct, frozen=True, kw_only=True):
    """The models of one engine and host."""

    engine: str
    host: str = ""
    models: tuple[ModelFacts, ...] = ()
    trouble: str | None = None
    """Why it could not be asked."""
    left_out: tuple[str, ...] = ()
    """Reasons, one for each entry or file that is not a readable model."""

    @property
    def name(self) -> str:
        address = self.host.rpartition("://")[2]
        return f"{self.engine} {address}" if address else self.engine


class Comparison(Struct, frozen=True, kw_only=True):
    """Differences between the answers of all engines and the manifest."""

    new: tuple[Model, ...]
    gone: tuple[Model, ...]
    """Models of the manifest that their engine, asked on every host, does not have."""
    embedding: tuple[str, ...]
    """Ids of the embedding models, new and known."""
    left_out: tuple[str, ...]


class Scanner:
    """Asks engines for their models.

    An engine without a host in the options finds it itself; `folders` are searched for GGUF files
    besides the default folders.
    """

    def __init__(
        self,
        registered: Iterable[Engine],
        options: EngineOptions,
        folders: Sequence[Path] = (),
    ) -> None:
        self._engines = Engines(registered, options=options)
        self._registered = self._engines.registered
        self._hosts = options.hosts
        self._folders = folders

    def ask(self, named: Iterable[str] = ()) -> Iterator[Answer]:
        """Yield the answer of every engine and host, including unknown `named` engines.

        Ollama is left out where it does not run, unless it is named or has a host, and servers
        of `openai` are those in `hosts`. Model files are those of `llamacpp`, unless only
        `llama-server` is named, which has the same.
        """
        named = list(named)
        files = {"llamacpp", "llama-server"} & set(named) or {"llamacpp"}
        for name in dict.fromkeys(
            [*BUILT_IN, *sorted(self._registered), *named, *map(engine_at, self._hosts)]
        ):
            hosts = hosts_of(name, self._hosts)
            if name == "openai" and not hosts and name not in self._registered:
                continue
            if name in _FILE_ENGINES and not hosts and name not in {*files, *self._registered}:
                continue
            for host in hosts or ("",):
                answer = self._answer(name, host)
                asked_for = host or name in named or name != "ollama" or name in self._registered
                if asked_for or answer.trouble is None:
                    yield answer

    def close(self) -> None:
        self._engines.close()

    def _answer(self, name: str, host: str = "") -> Answer:
        with _warnings() as left_out:
            try:
                self._engines.require(name)
                if name in _FILE_ENGINES and not host and name not in self._registered:
                    if name == "llama-server":
                        self._engines.get(name).models()  # fails without such a program
                    models = list(self._files(left_out))
                else:
                    engine = self._engines.get(name, [host] if host else ())
                    models = list(engine.models())
                    found = name in ("lmstudio", "ollama") and name not in self._registered
                    host = host or (host_of(engine) if found else "")
            except Failure as failure:
                return Answer(engine=name, host=host, trouble=failure.text)
            except (EngineUnavailable, ImportError, OSError) as error:
                return Answer(engine=name, host=host, trouble=str(error))
            except (Exception, SystemExit) as error:  # third-party engines may raise anything
                trouble = f"{type(error).__name__}: {error}"
                return Answer(engine=name, host=host, trouble=trouble)
        return Answer(engine=name, host=host, models=tuple(models), left_out=tuple(left_out))

    def _files(self, left_out: list[str]) -> Iterator[ModelFacts]:
        left_out += [f"{each}: no such folder" for each in self._folders if not each.is_dir()]
        found = search([*usual_places(), *self._folders])
        left_out += found.incomplete
        for name, path in found.models.items():
            try:
                checked = preflight(path)
            except OSError as error:
                left_out.append(f"{path}: cannot be read: {error.strerror or error}")
                continue
            if checked.verdict is None:
                yield checked.facts(name=name)
            else:
                left_out.append(f"{path}: {checked.reason}")


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect the warnings that the package logs."""
    texts: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("pytest_lmstrix")
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)


def compare_with_manifest(
    known: Sequence[Model], answers: Sequence[Answer], folder: Path
) -> Comparison:
    """Compare with the manifest in `folder`, whose models are `known`.

    A file counts as known under any id, and as a download of a known source if its path shows
    that. A file whose id belongs to another model gets the suffix `@engine`.
    """
    known = entries_of(known)
    taken = {model.id: (_owner(model), _file(model.source, folder)) for model in known}
    files = {at for at in taken.values() if at[1] is not None}
    files |= {(_owner(model), file) for model in known if (file := _cached(model, folder))}
    new: list[Model] = []
    left_out = [f"{answer.name}: {reason}" for answer in answers for reason in answer.left_out]
    left_out += _differing(answers)
    found = [model_of(facts, answer.engine) for answer in answers for facts in answer.models]
    for model in sorted(found, key=lambda model: model.source is not None):
        at = (_owner(model), _file(model.source, folder))
        other = taken.get(model.id)
        if other == at or at in files or (other and other[0] == at[0] and at[1] is None):
            continue
        if any(_owner(model) == _owner(each) and _is_download(model, each) for each in known):
            continue
        if other is not None and model.source is not None:
            model = replace(model, id=f"{model.id}@{model.engine}")
        if model.id in taken:
            left_out.append(f"{model.engine}: id '{model.id}' belongs to another model")
            continue
        taken[model.id] = at
        new.append(model)
    return Comparison(
        new=tuple(new),
        gone=tuple(_gone(known, answers, folder)),
        embedding=tuple(dict.fromkeys(
            facts.id for answer in answers for facts in answer.models if facts.type == "embedding"
        )),
        left_out=tuple(left_out),
    )  # fmt: skip


def not_recorded(new: Sequence[Model], appended: Sequence[Model]) -> Iterator[str]:
    """Yield the ids and values of `new` models that are not valid in a manifest."""
    written = {model.id: model for model in appended}
    for model in new:
        if model.id not in written:
            yield f"{model.engine}: '{model.id}' is not a valid id for a manifest"
            continue
        for name in _RECORDED:
            value = getattr(model, name)
            if value != getattr(written[model.id], name):
                yield f"{model.engine}: '{model.id}': {name} {value!r} is not valid; left out"


def is_complete(answers: Sequence[Answer], known: Sequence[Model], hosts: Sequence[str]) -> bool:
    """Return whether all named hosts and all engines of the manifest answered.

    Other engines may be unavailable, but not all of them.
    """
    required = {model.engine for model in known}
    silent = [answer for answer in answers if answer.trouble is not None]
    is_required = (answer.engine in required or answer.host in hosts for answer in silent)
    return len(silent) < len(answers) and not any(is_required)


def _differing(answers: Sequence[Answer]) -> Iterator[str]:
    """Yield a text for each model that differs between hosts."""
    first: dict[tuple[str, str], tuple[Answer, ModelFacts]] = {}
    for answer in answers:
        for facts in answer.models:
            recorded, same = first.setdefault((answer.engine, facts.id), (answer, facts))
            if facts.fingerprint != same.fingerprint:
                yield f"{answer.name}: '{facts.id}' is not the same file as on {recorded.name}"


def _gone(known: Sequence[Model], answers: Sequence[Answer], folder: Path) -> Iterator[Model]:
    silent = {answer.engine for answer in answers if answer.trouble is not None}
    asked = {answer.engine for answer in answers}
    having = {(answer.engine, facts.id) for answer in answers for facts in answer.models}
    for model in known:
        file = _file(model.source, folder)
        if model.engine not in asked or model.url is not None or model.served_name is not None:
            continue
        if model.engine in silent or (model.source is not None and file is None):
            continue
        there = file.exists() if file is not None else (model.engine, model.id) in having
        if not there:
            yield model


def _owner(model: Model) -> str:
    """Return its engine; engines of model files have the same ones."""
    return "files" if model.engine in _FILE_ENGINES and model.source is not None else model.engine


def _file(source: str | None, folder: Path) -> Path | None:
    """Return the real path of a local source, the same through any link."""
    local = parse_source(source) if source is not None else None
    if not isinstance(local, LocalSource):
        return None
    return Path(folder, with_home(local.path)).resolve()


def _cached(model: Model, folder: Path) -> Path | None:
    """Return the path of the plugin's own download of `model`."""
    if model.source is None or _file(model.source, folder) is not None:
        return None
    file = is_cached(model.source, base_dir=folder)
    return file.resolve() if file is not None else None


def _is_download(found: Model, known: Model) -> bool:
    """Return whether `found` is another program's download of the source of `known`."""
    source = parse_source(known.source) if known.source is not None else None
    if found.source is None or source is None or isinstance(source, LocalSource):
        return False
    path = Path(found.source).as_posix()
    # The cache of Hugging Face links to files named by their hash.
    if known.sha256 is not None and Path(path).resolve().name == known.sha256.lower():
        return True
    if not isinstance(source, HubSource):
        return False
    repo, file = re.escape(source.repo), re.escape(source.file)
    cached = f"models--{repo.replace('/', '--')}/snapshots/[^/]+/{file}"
    # LM Studio's folder, and the cache of llama.cpp.
    others = rf"{repo}/{file}|{f'{repo}_{file}'.replace('/', '_')}"
    return re.search(f"(^|/)({cached}|{others})$", path) is not None
