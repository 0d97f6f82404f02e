"""What the editors of all formats share: an edit replaces one span of a text."""

from __future__ import annotations

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


def newline_of(text: str) -> str:
    """Return the line end that `text` uses."""
    return "\r\n" if "\r\n" in text else "\n"


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


def with_change(data: Any, change: SetValue) -> Any:
    """Return a copy of `data` with the value set.

    Raises:
        DocumentError: There is another value where an object is needed.
    """
    changed = {} if data is None else _unshared(data)
    place = changed
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
    return changed


def same(one: Any, other: Any) -> bool:
    """Return whether two documents are equal, with types and the order of keys."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (one != one and other != other)
