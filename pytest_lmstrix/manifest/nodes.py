"""YAML as nodes with line numbers: size and depth are limited, nothing is executed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeGuard

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    ScalarEvent,
)
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import Reader

from pytest_lmstrix.weights.source import redact

MAX_BYTES = 4_000_000
"""8,000 models take about 1 MB."""
MAX_VALUES = 500_000
"""Values in one manifest; those of an alias count at each use."""
MAX_DEPTH = 20
MAX_ANCHORS = 1_000
_MAX_PROBLEMS = 50
_REPARSED = 100_000
"""Characters that are parsed again, slowly, to find out what libyaml refused."""
_MAX_SHOWN = 60

_LoaderType = type[yaml.SafeLoader] | type[yaml.CSafeLoader]
_Loader: _LoaderType = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_DECIMAL = re.compile(r"\+?(?:0|[1-9][0-9_]{0,30})")
_OTHER = object()
"""A value that is not valid for any key."""


class ManifestError(ValueError):
    """The problems of a manifest; its text is the first one."""

    def __init__(self, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = tuple(problems)
        """Every problem, one line each, in the file's order."""


class Problems:
    """Collects the problems of the file `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, text: str) -> None:
        """Add `text` for a line, counted from 1; raise when the list is full."""
        self._found.append((line, text))
        if len(self._found) >= _MAX_PROBLEMS:
            self.raise_any()

    def raise_any(self) -> None:
        """Raise `ManifestError` if there are problems."""
        if self._found:
            self._found.sort(key=lambda found: found[0])
            raise ManifestError([f"{self._path}:{line}: {text}" for line, text in self._found])

    def error(self, line: int, text: str) -> ManifestError:
        """Return the error for a problem that stops the reading."""
        return ManifestError([f"{self._path}:{line}: {text}"])


def line_of(part: Node | Event) -> int:
    """Return the first line of a part of the document, counted from 1."""
    return part.start_mark.line + 1 if part.start_mark is not None else 1


def compose(data: bytes, problems: Problems) -> Node | None:
    """Parse the YAML document in `data`; `None` when it is empty.

    Raises:
        ManifestError: It is not UTF-8, not YAML, too large, too deep, or not one document.
    """
    if len(data) > MAX_BYTES:
        raise problems.error(1, f"is {len(data):,} bytes long, {MAX_BYTES:,} are allowed")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise problems.error(line, f"must be UTF-8, got byte 0x{data[error.start]:02x}") from None
    control = Reader.NON_PRINTABLE.search(text)
    if control is not None:
        line = text.count("\n", 0, control.start()) + 1
        raise problems.error(line, f"must not contain the character U+{ord(control[0]):04X}")
    try:
        _check_size(text, problems)
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        _check_depth(text, problems)
        mark = error.problem_mark or error.context_mark
        message = " ".join(filter(None, (error.context, error.problem)))
        line = mark.line + 1 if mark is not None else 1
        raise problems.error(line, f"is not YAML: {message}{_tab_hint(text, line)}") from None
    except yaml.YAMLError as error:
        raise problems.error(1, f"is not YAML: {' '.join(str(error).split())}") from None


def _tab_hint(text: str, line: int) -> str:
    lines = text.splitlines()[line - 1 : line]
    return "; indent with spaces, not tabs" if any(re.match(r" *\t", it) for it in lines) else ""


def _check_depth(text: str, problems: Problems) -> None:
    """Raise our own error if libyaml refused the nesting, ahead of the parser's events."""
    with suppress(yaml.YAMLError):
        _check_size(text[:_REPARSED], problems, loader=yaml.SafeLoader)


def _check_size(text: str, problems: Problems, loader: _LoaderType = _Loader) -> None:
    # Composing recurses and expands aliases: count before.
    sizes: dict[str | None, int] = {}
    anchors = 0
    open_: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=loader):
        if getattr(event, "anchor", None) is not None and not isinstance(event, AliasEvent):
            anchors += 1
            if anchors > MAX_ANCHORS:
                raise problems.error(line_of(event), f"has more than {MAX_ANCHORS:,} anchors")
        if isinstance(event, CollectionStartEvent):
            open_.append((event.anchor, 1))
            if len(open_) > MAX_DEPTH:
                raise problems.error(line_of(event), f"is nested more than {MAX_DEPTH} levels deep")
            continue
        if isinstance(event, CollectionEndEvent):
            anchor, size = open_.pop()
        elif isinstance(event, ScalarEvent):
            anchor, size = event.anchor, 1
        elif isinstance(event, AliasEvent):
            anchor, size = None, sizes.get(event.anchor, 1)
            if event.anchor in (name for name, _ in open_):
                raise problems.error(
                    line_of(event), f"alias *{event.anchor} is inside its own value"
                )
        else:
            continue
        sizes[anchor] = size
        outer, total = open_[-1]
        open_[-1] = (outer, total + size)
        if total + size > MAX_VALUES:
            raise problems.error(
                line_of(event), f"holds more than {MAX_VALUES:,} values, aliases followed"
            )


def is_list(node: Node) -> TypeGuard[SequenceNode]:
    """Whether a node is a list, without any other tag."""
    return isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq"


def is_mapping(node: Node) -> TypeGuard[MappingNode]:
    """Whether a node is a mapping, without any other tag."""
    return isinstance(node, MappingNode) and node.tag == f"{_TAG}map"


def plain(node: Node) -> object:
    """Return the scalar value of a node: text, number, true or false, or `None`.

    Of YAML's notations of numbers only decimals are valid: people read 010 as ten.
    Anything else is an object that fits no type.
    """
    if not isinstance(node, ScalarNode):
        return _OTHER
    text = node.value
    match node.tag.removeprefix(_TAG):
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() in ("true", "yes", "on")
        case "int" if _DECIMAL.fullmatch(text):
            return int(text.replace("_", ""))
        case "float" if re.fullmatch(r"[0-9]{0,30}\.[0-9]{0,30}", text):
            return float(f"0{text}0")
    return _OTHER


def describe(node: Node) -> str:
    """Return a value for a message, in one line."""
    if not node.tag.startswith(_TAG) or "/" in node.tag:
        return f"the tag {_cut(node.tag.removeprefix(_TAG))!r}"
    if not isinstance(node, ScalarNode):
        kind = "list" if isinstance(node, SequenceNode) else "mapping"
        return f"a {kind}" if node.value else f"an empty {kind}"
    if node.tag == f"{_TAG}null":
        return "nothing"
    text = repr(_cut(redact(node.value)))
    return text if node.tag == f"{_TAG}str" else text[1:-1]


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
