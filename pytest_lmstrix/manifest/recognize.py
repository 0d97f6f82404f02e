"""Recognizes a models.yaml of this plugin among the files of that name that other tools read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from yaml.events import (
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from pytest_lmstrix.manifest.nodes import MAX_BYTES

_TEMPLATE = re.compile(r"\{[{%]")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def is_manifest(path: Path) -> bool:
    """Whether the key `models` of the file is a list that has a mapping with an `id`.

    A manifest with a mistake counts, even with a YAML syntax error after its first model, but a
    template does not.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return False
    try:
        events = yaml.parse(text, Loader=_Loader)
        found = _has_model(events)
        if found and _TEMPLATE.search(text):
            for _ in events:  # raises where it is no YAML
                pass
    except (yaml.YAMLError, ValueError):
        return False
    return found


class _Mapping:
    """An open mapping."""

    key: object = None
    """Of the value that comes next; `None` before a key."""


def _has_model(events: Iterator[Event]) -> bool:
    open_: list[_Mapping | None] = []
    for event in events:
        if isinstance(event, CollectionStartEvent):
            open_.append(_Mapping() if isinstance(event, MappingStartEvent) else None)
            continue
        if isinstance(event, CollectionEndEvent):
            open_.pop()
        elif not isinstance(event, NodeEvent):
            continue
        text = event.value if isinstance(event, ScalarEvent) else None
        match open_:
            case [_Mapping(key="models"), None, _Mapping(key="id")] if text is not None:
                return True
            case [*_, _Mapping(key=None) as inside]:
                inside.key = () if text is None else text
            case [*_, _Mapping() as inside]:
                inside.key = None
    return False
