"""Edits YAML by the spans of its nodes: bytes beside an edit never change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from pytest_lmstrix.export.document import (
    COMMENT_MARK,
    DocumentError,
    Edit,
    Path,
    SetValue,
    line_end,
    line_start,
    look_up,
    newline_of,
    set_values,
    tree_of,
)

_REST = re.compile(rf"[ \t]*(?:#[ \t]*{COMMENT_MARK}[^\r\n]*)?(?=\r?\n|\Z)")
"""The rest of a line that a comment may replace."""
_BLOCK = re.compile(r"[|>][-+0-9]{0,2}")


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
    return set_values(text, changes, parse_yaml, _edits)


def _edits(text: str, changes: Sequence[SetValue]) -> list[Edit]:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        raise DocumentError("the file has no entries")
    nodes: dict[int, yaml.Node] = {}
    missing: dict[int, list[tuple[Path, SetValue]]] = {}
    for change in changes:
        node, left = root, change.path
        while left and (found := _part(node, left[0])) is not None:
            node, left = found, left[1:]
        nodes[id(node)] = node
        missing.setdefault(id(node), []).append((left, change))
    return [_edit(text, nodes[key], each) for key, each in missing.items()]


def _edit(text: str, node: yaml.Node, missing: list[tuple[Path, SetValue]]) -> Edit:
    changes = tuple(change for _, change in missing)
    if isinstance(node, yaml.ScalarNode):
        return _replacement(text, node, missing, changes)
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise DocumentError(f"'{missing[0][0][0]}' cannot be added")
    tree = tree_of(missing)
    last_end = _end(node.value[-1][1])
    if node.flow_style:
        return Edit(last_end, last_end, f", {_flow(tree)}", changes)
    newline = newline_of(text)
    block = newline.join(_block(tree, node.value[0][0].start_mark.column))
    if last_end == line_start(text, last_end):  # after a block scalar
        return Edit(last_end, last_end, f"{block}{newline}", changes)
    place = line_end(text, last_end)
    return Edit(place, place, f"{newline}{block}", changes)


def _replacement(
    text: str,
    node: yaml.ScalarNode,
    missing: list[tuple[Path, SetValue]],
    changes: tuple[SetValue, ...],
) -> Edit:
    start, end = node.start_mark.index, node.end_mark.index
    left, change = missing[0]
    if isinstance(change.value, str):
        return _number_inside(text, node, change)
    if text[start : start + 1] in ("&", "!", "|", ">"):
        raise DocumentError(f"'{change.path[-1]}' is written in a way that cannot be replaced")
    # Null, where an object is needed, has keys left.
    value = f"{{{_flow(tree_of(missing))}}}" if left else _scalar(change.value)
    space = " " if start == end and text[start - 1 : start] == ":" else ""
    match = _REST.match(text, end) if change.note else None
    if match is not None:
        value, end = f"{value}  # {change.note}", match.end()
    return Edit(start, end, space + value, changes)


def _number_inside(text: str, node: yaml.ScalarNode, change: SetValue) -> Edit:
    """Return the edit of the number in which a text differs from `change`.

    However the text is written, in quotes or in lines, all around the number stays.
    """
    start, end = node.start_mark.index, node.end_mark.index
    old, new = _differing(node.value, change.value)
    block = _BLOCK.match(text, start)
    place = block.end() if block else end
    rest = _REST.match(text, place) if change.note else None
    for match in re.finditer(rf"(?<!\d){re.escape(old)}(?!\d)", text[start:end]):
        raw = f"{text[start : start + match.start()]}{new}{text[start + match.end() : end]}"
        if look_up(parse_yaml(text[:start] + raw + text[end:]), change.path) != change.value:
            continue
        if rest is None:
            return Edit(start, end, raw, (change,))
        note = f"  # {change.note}"
        if block:
            raw = f"{block[0]}{note}{raw[rest.end() - start :]}"
            return Edit(start, end, raw, (change,))
        return Edit(start, rest.end(), raw + note, (change,))
    raise DocumentError(f"'{change.path[-1]}' is written in a way that cannot be replaced")


def _differing(old: str, new: str) -> tuple[str, str]:
    """Return the numbers in which two texts differ."""
    pairs = zip(old, new, strict=False)
    start = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(old), len(new)))
    start -= len(old[:start]) - len(old[:start].rstrip("0123456789"))
    one, other = (re.split(r"\D", text[start:], maxsplit=1)[0] for text in (old, new))
    return one, other


def _block(tree: dict[str | int, Any], margin: int) -> Iterator[str]:
    for key, value in tree.items():
        start = f"{' ' * margin}{_scalar(key)}:"
        if isinstance(value, SetValue):
            yield f"{start} {_scalar(value.value)}" + (f"  # {value.note}" if value.note else "")
        else:
            yield start
            yield from _block(value, margin + 2)


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


def _flow(tree: dict[str | int, Any]) -> str:
    """Return the members of a flow mapping."""
    return ", ".join(
        f"{_scalar(key)}: {_scalar(value.value)}"
        if isinstance(value, SetValue)
        else f"{_scalar(key)}: {{{_flow(value)}}}"
        for key, value in tree.items()
    )


def _scalar(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*", value)
    return str(value) if plain and value not in ("y", "n") else json.dumps(value)
