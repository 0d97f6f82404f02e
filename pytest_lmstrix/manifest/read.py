"""Reads and validates models.yaml; its reference is docs/models-yaml.md."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from yaml.nodes import MappingNode, Node, ScalarNode

from pytest_lmstrix.core.types import Host, Model
from pytest_lmstrix.manifest.hosts import host_of_fields, words_of
from pytest_lmstrix.manifest.nodes import (
    ManifestError,
    Problems,
    compose,
    describe,
    is_list,
    is_mapping,
    line_of,
    plain,
)
from pytest_lmstrix.manifest.schema import (
    DEFAULT_KEYS,
    ENGINES_SETTINGS,
    HOST_KEYS,
    LOAD_KEYS,
    LOADING_ENGINES,
    MODEL_KEYS,
    SERVER_KEYS,
    Rule,
    Wrong,
)
from pytest_lmstrix.manifest.variants import combinations
from pytest_lmstrix.system.addresses import server_of
from pytest_lmstrix.system.garbage import collector_paused

__all__ = [
    "Manifest",
    "ManifestError",
    "ManifestNotFound",
    "parse_manifest",
    "read_manifest",
    "whole_manifest",
]


_TOP_KEYS = ("defaults", "hosts", "models")


class ManifestNotFound(ManifestError):
    """The file does not exist."""


class Manifest(Struct, frozen=True, kw_only=True):
    """The content of a models.yaml."""

    models: tuple[Model, ...]
    hosts: tuple[Host, ...] = ()
    default_engine: str | None
    """The `engine` of its `defaults`."""
    has_list: bool
    """Whether it has the key `models`."""
    indent: int
    """Columns before the dashes of its list of models."""


def read_manifest(path: Path, *, engine: str = "lmstudio") -> tuple[Model, ...]:
    """Return the models of a manifest in its order; `engine` is the default engine.

    Raises:
        ManifestNotFound: The file does not exist.
        ManifestError: It cannot be read, or is not valid.
    """
    return whole_manifest(path, engine=engine).models


def whole_manifest(path: Path, *, engine: str = "lmstudio") -> Manifest:
    """Return the manifest `path`; `engine` is the default engine.

    Raises:
        ManifestNotFound: The file does not exist.
        ManifestError: It cannot be read, or is not valid.
    """
    return parse_manifest(read_bytes(path), path, engine=engine)


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a manifest.

    Raises:
        ManifestNotFound: The file does not exist.
        ManifestError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ManifestNotFound([f"{path}: no such file"]) from None
    except OSError as error:
        raise ManifestError([f"{path}: cannot be read: {error.strerror or error}"]) from None


@collector_paused()
def parse_manifest(
    data: bytes, path: Path, *, engine: str = "lmstudio", may_be_empty: bool = False
) -> Manifest:
    """Parse `data`, the bytes of the file `path`; nothing in it is executed.

    `may_be_empty` allows an empty or missing list of models.

    Raises:
        ManifestError: It is not valid.
    """
    problems = Problems(path)
    manifest = _Reader(problems, engine, may_be_empty).manifest(compose(data, problems))
    problems.raise_any()
    return manifest


class _Reader:
    """Walks the nodes, collects every problem, and keeps the valid values."""

    def __init__(self, problems: Problems, engine: str, may_be_empty: bool) -> None:
        self._problems = problems
        self._engine = engine
        self._may_be_empty = may_be_empty
        self._lines: dict[str, int] = {}
        """Model id -> the line of its first entry."""
        self._hosts: list[Host] = []

    def manifest(self, root: Node | None) -> Manifest:
        models: tuple[Model, ...] = ()
        defaults: dict[str, Any] = {}
        indent = 2
        top = self._mapping(root, _TOP_KEYS, "the file") if root is not None else {}
        if "hosts" in top:
            self._read_hosts(top["hosts"])
        if "defaults" in top:
            self._check_hosts(top["defaults"], "defaults")
            defaults = self._values(top["defaults"], DEFAULT_KEYS, "defaults")
        if "models" in top:
            models = tuple(self._models(top["models"], defaults))
            indent = top["models"].start_mark.column if models else indent
        elif not self._may_be_empty and (root is None or is_mapping(root)):
            self._problems.add(1, "`models:` is missing, a list of models is expected")
        return Manifest(
            models=models,
            hosts=tuple(self._hosts),
            default_engine=defaults.get("engine"),
            has_list="models" in top,
            indent=indent,
        )

    def _read_hosts(self, entries: Node) -> None:
        if not is_list(entries):
            self._problems.add(line_of(entries), f"hosts must be a list, got {describe(entries)}")
            return
        for position, entry in enumerate(entries.value, start=1):
            name = _child(entry, "name")
            where = f"host {describe(name) if isinstance(name, ScalarNode) else f'#{position}'}"
            own = self._values(entry, HOST_KEYS, where)
            given = {key for key in HOST_KEYS if _child(entry, key) is not None}
            if not is_mapping(entry) or own.keys() < given:
                continue  # reported already
            try:
                host = host_of_fields(own)
                self._check_new(host)
            except ValueError as error:
                self._problems.add(line_of(entry), f"{where}: {error}")
            else:
                self._hosts.append(host)

    def _check_new(self, host: Host) -> None:
        for other in self._hosts:
            if host.name == other.name:
                raise ValueError("name is taken already")
            if server_of(host.address) == server_of(other.address):
                raise ValueError(f"url is that of host {other.name!r} already")

    def _check_hosts(self, entry: Node, where: str) -> None:
        """Check that the hosts that a model asks for are names or tags of some."""
        asked = _child(entry, "hosts")
        known = list(dict.fromkeys(word for host in self._hosts for word in words_of(host)))
        for node in asked.value if asked is not None and is_list(asked) else ():
            if isinstance(node, ScalarNode) and node.value not in known:
                near = get_close_matches(node.value, known, n=1)
                hint = f"did you mean {near[0]}?" if near else "choose from " + ", ".join(known)
                self._problems.add(
                    line_of(node),
                    f"{where}: hosts: {describe(node)} is neither a name nor a tag of `hosts:`;"
                    f" {hint if known else 'it has none'}",
                )

    def _models(self, entries: Node, defaults: dict[str, Any]) -> Iterator[Model]:
        if not is_list(entries) and plain(entries) is not None:
            self._problems.add(line_of(entries), f"models must be a list, got {describe(entries)}")
        elif is_list(entries) and entries.value:
            for position, entry in enumerate(entries.value, start=1):
                yield from self._model(entry, position, defaults)
        elif not self._may_be_empty:
            self._problems.add(
                line_of(entries),
                "models is empty; `pytest --lmstrix-scan` adds the models it finds",
            )

    def _model(self, entry: Node, position: int, defaults: dict[str, Any]) -> Iterator[Model]:
        id_ = _child(entry, "id")
        where = f"model {describe(id_) if isinstance(id_, ScalarNode) else f'#{position}'}"
        own = self._values(entry, MODEL_KEYS, where)
        line = line_of(entry)
        if "hosts" in own:
            self._check_hosts(entry, where)
        if id_ is None and is_mapping(entry):
            self._problems.add(line, f"{where}: id is missing")
        if "id" not in own:
            return
        fields = {"engine": self._engine, **defaults, **own}
        if fields["engine"] in LOADING_ENGINES and (
            keys := [key for key in SERVER_KEYS if key in own]
        ):
            text = f"{where}: {keys[0]} is a key of engine openai, not of {fields['engine']}"
            self._problems.add(line, text)
        fields["load"] = {**defaults.get("load", {}), **own.get("load", {})}
        for setting in fields["load"]:
            if instead := ENGINES_SETTINGS.get((fields["engine"], setting)):
                self._problems.add(line, f"{where}: load: {setting} cannot be set: {instead}")
        limit, contexts = fields.get("context_limit"), fields.get("contexts")
        if limit is not None and contexts is not None and "contexts" not in own:
            # A model's own contexts are tested even beyond its declared limit.
            fields["contexts"] = tuple(size for size in contexts if size <= limit) or (limit,)
        try:
            models = [msgspec.convert(each, Model) for each in combinations(fields)]
        except ValueError as error:
            self._problems.add(line, f"{where}: load {error}")
            return
        for id_ in dict.fromkeys([own["id"], *(model.id for model in models)]):
            if id_ in self._lines:
                taken = f"id{'' if id_ == own['id'] else f' {id_!r}'} is taken already"
                self._problems.add(line, f"{where}: {taken}, by line {self._lines[id_]}")
            self._lines.setdefault(id_, line)
        yield from models

    def _values(self, node: Node, rules: Mapping[str, Rule | None], where: str) -> dict[str, Any]:
        """Return the valid values of a mapping."""
        values: dict[str, Any] = {}
        for key, value in self._mapping(node, rules, where).items():
            rule = rules[key]
            if rule is None:
                values[key] = self._values(value, LOAD_KEYS, f"{where}: {key}")
                continue
            try:
                values[key] = rule.read(value)
            except Wrong as wrong:
                self._problems.add(line_of(wrong.node), f"{where}: {key} {wrong}")
        return values

    def _mapping(self, node: Node, known: Collection[str], where: str) -> dict[str, Node]:
        """Return the values of a mapping by key, without unknown keys."""
        if not is_mapping(node):
            self._problems.add(line_of(node), f"{where} must be a mapping, got {describe(node)}")
            return {}
        found: dict[str, Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, ScalarNode) else ""
            if name in found:
                self._problems.add(line_of(key), f"{where}: {name} is given twice")
            elif name in known:
                found[name] = value
            else:
                self._problems.add(
                    line_of(key),
                    f"{where}: {describe(key)} is not a valid key; {_valid_key(name, known)}",
                )
        return found


def _valid_key(name: str, known: Collection[str]) -> str:
    if name == "<<":
        return "keys cannot be merged: write them out, or once for all models under `defaults:`"
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else "choose from " + ", ".join(known)


def _child(entry: Node, name: str) -> Node | None:
    """Return the value of a key, even if the rest of the entry is not valid."""
    if isinstance(entry, MappingNode):
        return next((value for key, value in entry.value if plain(key) == name), None)
    return None
