"""Edits YAML by the spans of its nodes: bytes beside an edit never change."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from pytest_lmstrix.export.document import (
    COMMENT_MARK,
    DocumentError,
    SetValue,
    line_end,
    line_start,
    newline_of,
    same,
    with_change,
)

_REST = re.compile(rf"[ \t]*(?:#[ \t]*{COMMENT_MARK}[^\r\n]*)?(?=\r?\n|\Z)")
"""The rest of a line that a comment may replace."""


def parse_yaml(text: str) -> Any:
    """Return the data of `text`.

    Raises:
        DocumentError: It is not one document of YAML.
    """
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "is not valid YAML"
        raise DocumentError(f"{problem}{where}") from None


def edit_yaml(text: str, changes: list[SetValue]) -> str:
    """Return `text` with the values set.

    Raises:
        DocumentError: It is not YAML, or more than the values would change.
    """
    for change in changes:
        data = parse_yaml(text)
        wanted = with_change(data, change)
        if same(wanted, data):
            continue
        new = _set(text, change)
        try:
            kept = same(parse_yaml(new), wanted)
        except DocumentError:
            kept = False
        if not kept:
            where = ".".join(map(str, change.path))
            raise DocumentError(f"'{where}' cannot be set without changing other values")
        text = new
    return text


def _set(text: str, change: SetValue) -> str:
    node, left = yaml.compose(text, Loader=yaml.SafeLoader), change.path
    while node is not None and left and (found := _part(node, left[0])) is not None:
        node, left = found, left[1:]
    if node is None:
        raise DocumentError("the file has no entries")
    start, end = node.start_mark.index, node.end_mark.index
    if isinstance(node, yaml.ScalarNode):
        if text[start : start + 1] in ("&", "!", "|", ">"):
            raise DocumentError(f"'{change.path[-1]}' is written in a way that cannot be replaced")
        value = _flow(left, change.value)
        if left:
            value = f"{{{value}}}"
        elif isinstance(change.value, str):
            value = _in_quotes(text[start:end], node.value, change.value)
        space = " " if start == end and text[start - 1 : start] == ":" else ""
        return text[:start] + space + value + _with_note(text[end:], change.note)
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise DocumentError(f"'{left[0]}' cannot be added")
    last_end = _end(node.value[-1][1])
    if node.flow_style:
        return f"{text[:last_end]}, {_flow(left, change.value)}{text[last_end:]}"
    return _insert_block(text, node, last_end, change, left)


def _in_quotes(raw: str, old: str, new: str) -> str:
    """Return `new` in the quotes of `raw`, if possible."""
    try:
        replaced = raw.replace(old, new)
        if yaml.safe_load(replaced) == new:
            return replaced
    except yaml.YAMLError:
        pass
    return _scalar(new)


def _insert_block(
    text: str, node: yaml.MappingNode, last_end: int, change: SetValue, left: tuple[Any, ...]
) -> str:
    margin = node.value[0][0].start_mark.column
    newline = newline_of(text)
    lines = [" " * (margin + 2 * depth) + f"{_scalar(key)}:" for depth, key in enumerate(left)]
    lines[-1] += f" {_scalar(change.value)}" + (f"  # {change.note}" if change.note else "")
    block = newline.join(lines)
    if last_end == line_start(text, last_end):  # after a block scalar
        return f"{text[:last_end]}{block}{newline}{text[last_end:]}"
    place = line_end(text, last_end)
    return f"{text[:place]}{newline}{block}{text[place:]}"


def _with_note(rest: str, note: str) -> str:
    match = _REST.match(rest) if note else None
    return rest if match is None else f"  # {note}{rest[match.end() :]}"


def _part(node: yaml.Node, key: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int):
        items: list[yaml.Node] = node.value
        return items[key] if key < len(items) else None
    found = None
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value == str(key):
                found = value
    return found


def _end(node: yaml.Node) -> int:
    """Return the end of the last value; that of a block includes comments after it."""
    if not node.value or not isinstance(node, yaml.CollectionNode) or node.flow_style:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(node, yaml.MappingNode) else last)


def _flow(keys: tuple[Any, ...], value: Any) -> str:
    """Return keys and value as one line; a single key is a member of a flow mapping."""
    text = _scalar(value)
    for depth, key in enumerate(reversed(keys)):
        outermost = depth == len(keys) - 1
        text = f"{_scalar(key)}: {text}" if outermost else f"{{{_scalar(key)}: {text}}}"
    return text


def _scalar(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*", value)
    return str(value) if plain and value not in ("y", "n") else json.dumps(value)
