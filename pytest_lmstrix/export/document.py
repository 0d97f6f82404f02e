"""What the editors of all formats share: an edit replaces one span of a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

Path = tuple[str | int, ...]
"""Keys of objects and indexes of lists, from the root."""
COMMENT_MARK = "lmstrix: "
"""Begins each comment that is written, by which the next export finds and replaces it."""


class DocumentError(ValueError):
    """A text is not in its format, or cannot be edited without changing more than intended."""


class SetValue(Struct, frozen=True):
    """A value to set; missing keys on the way to it are added."""

    path: Path
    value: Any
    note: str = ""
    """A comment beside the value, for formats that have comments."""


class Edit(Struct, frozen=True):
    """The text for a span of another text, which makes some changes."""

    start: int
    end: int
    text: str
    changes: tuple[SetValue, ...]


def newline_of(text: str) -> str:
    """Return the line end that `text` uses."""
    return "\r\n" if "\r\n" in text else "\n"


def lines_of(text: str) -> list[str]:
    """Return the lines with their ends; unlike `splitlines`, others than LF and CR end none."""
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)


def line_start(text: str, position: int) -> int:
    return text.rfind("\n", 0, position) + 1


def line_end(text: str, position: int) -> int:
    """Return the end of the line at `position`, before its line end."""
    end = text.find("\n", position)
    end = len(text) if end < 0 else end
    return end - 1 if text[position:end].endswith("\r") else end


def at(text: str, position: int) -> str:
    """Return a position as people count it."""
    line = text.count("\n", 0, position) + 1
    return f"line {line}, column {position - line_start(text, position) + 1}"


def look_up(data: Any, path: Path) -> Any:
    """Return the value at `path`; `None` where there is none."""
    for key in path:
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            return None
    return data


def _unshared(data: Any) -> Any:
    """Return a copy without the aliases of YAML, which would change together."""
    if isinstance(data, dict):
        return {key: _unshared(value) for key, value in data.items()}
    return [_unshared(value) for value in data] if isinstance(data, list) else data


def with_changes(data: Any, changes: Iterable[SetValue]) -> Any:
    """Return a copy of `data` with the values set.

    Raises:
        DocumentError: There is another value where an object is needed.
    """
    changed = {} if data is None else _unshared(data)
    for change in changes:
        _set_value(changed, change)
    return changed


def _set_value(place: Any, change: SetValue) -> None:
    for key in change.path[:-1]:
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place = look_up(place, (key,))
    last = change.path[-1]
    if not isinstance(place, dict) and not (isinstance(place, list) and isinstance(last, int)):
        where = ".".join(map(str, change.path[:-1]))
        raise DocumentError(f"'{where}' is not an object that can hold '{last}'")
    if isinstance(look_up(place, (last,)), dict | list):
        raise DocumentError(f"'{last}' is not a single value")
    if isinstance(place, list) and last == len(place):
        place.append(change.value)
    else:
        place[last] = change.value  # type: ignore[index]


def set_values(
    text: str,
    changes: Iterable[SetValue],
    parse: Callable[[str], Any],
    edits_of: Callable[[str, Sequence[SetValue]], list[Edit]],
) -> str:
    """Return `text` with the values set; those that it has already are left alone.

    `edits_of` returns the edits for changes of one text, each by itself.

    Raises:
        DocumentError: It cannot be parsed, or more than the values would change.
    """
    data = parse(text)
    missing = [
        change
        for change in {each.path: each for each in changes}.values()
        if not same(look_up(data, change.path), change.value)
    ]
    if not missing:
        return text
    wanted = with_changes(data, missing)
    new, left = text, missing
    while left:
        new, left = _edited(new, edits_of(new, left))
    try:
        if same(parse(new), wanted):
            return new
    except DocumentError:
        pass
    if len(missing) == 1:
        where = ".".join(map(str, missing[0].path))
        raise DocumentError(f"'{where}' cannot be set without changing other values")
    for change in missing:
        text = set_values(text, [change], parse, edits_of)
    return text


def _edited(text: str, edits: list[Edit]) -> tuple[str, list[SetValue]]:
    """Return the text with those edits that do not touch the same place, and the other changes."""
    new: list[str] = []
    left: list[SetValue] = []
    end, last_start = 0, -1
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        if edit.start < end or edit.start == last_start:
            left += edit.changes
            continue
        new += [text[end : edit.start], edit.text]
        end, last_start = edit.end, edit.start
    return "".join([*new, text[end:]]), left


def tree_of(changes: Iterable[tuple[Path, SetValue]]) -> dict[str | int, Any]:
    """Return the changes as nested objects, by the keys that are missing for each."""
    tree: dict[str | int, Any] = {}
    for left, change in changes:
        place = tree
        for key in left[:-1]:
            place = place.setdefault(key, {})
        place[left[-1]] = change
    return tree


def same(one: Any, other: Any) -> bool:
    """Return whether two documents are equal, with types and the order of keys."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (one != one and other != other)
