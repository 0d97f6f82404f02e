"""Edits JSON, with comments and the liberties of JSON5: bytes beside an edit never change."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from pytest_lmstrix.export.document import (
    COMMENT_MARK,
    DocumentError,
    Edit,
    Path,
    SetValue,
    at,
    line_start,
    newline_of,
    set_values,
    tree_of,
)

MOST_LEVELS = 200
_BLANK = re.compile(r"(?:[\s\ufeff]|//[^\r\n\u2028\u2029]*|/\*.*?\*/)*", re.DOTALL)
_AFTER = re.compile(r"(?:[ \t]|/\*[^\r\n]*?\*/)*(?://[^\r\n]*)?")
"""The rest of a line without data."""
_OWN_COMMENT = re.compile(rf"[ \t]*/\* {COMMENT_MARK}.*?\*/", re.DOTALL)
_STRING = re.compile(
    r'"(?:[^"\\\r\n]|\\(?:\r\n|.))*"' + r"|'(?:[^'\\\r\n]|\\(?:\r\n|.))*'", re.DOTALL
)
_WORD = re.compile(r"[-+]?[\w$.]+(?:(?<=[eE])[-+]\d+)?")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_HEX = re.compile(r"[-+]?0[xX][0-9a-fA-F]+")
_NAME = re.compile(r"[^\W\d][\w$]*|\$[\w$]*")
_ESCAPE = re.compile(r"\\(\r\n|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0",
            "\n": "", "\r": "", "\r\n": "", "\u2028": "", "\u2029": ""}  # fmt: skip
_WORDS = {"true": True, "false": False, "null": None}


class _Node(Struct):
    """A value and its span; `parts` are the members or items."""

    value: Any
    start: int
    end: int = 0
    parts: list[tuple[str | int, _Node]] = []
    comma: int | None = None
    """The position of a comma after the last part."""


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0

    def document(self) -> _Node:
        self._skip()
        root = self._value(0)
        self._skip()
        if self._place < len(self._text):
            raise self._error("expected the end of the file")
        return root

    def _error(self, problem: str) -> DocumentError:
        return DocumentError(f"{problem} at {at(self._text, self._place)}")

    def _skip(self) -> None:
        match = _BLANK.match(self._text, self._place)
        assert match is not None
        self._place = match.end()

    def _takes(self, character: str) -> bool:
        if self._text.startswith(character, self._place):
            self._place += 1
            return True
        return False

    def _value(self, level: int) -> _Node:
        if level > MOST_LEVELS:
            raise self._error(f"more than {MOST_LEVELS} levels")
        node = _Node(None, self._place)
        if self._takes("{"):
            node.value = {}
            self._parts(node, "}", level)
        elif self._takes("["):
            node.value = []
            self._parts(node, "]", level)
        elif self._text[self._place : self._place + 1] in ("'", '"'):
            node.value = self._string()
        else:
            node.value = self._word()
        node.end = self._place
        return node

    def _parts(self, node: _Node, closing: str, level: int) -> None:
        while True:
            self._skip()
            if self._takes(closing):
                return
            if node.parts and node.comma is None:
                raise self._error(f"expected ',' or '{closing}'")
            key: str | int = len(node.parts)
            if closing == "}":
                key = self._key()
            part = self._value(level + 1)
            node.parts.append((key, part))
            if closing == "}":
                node.value[key] = part.value
            else:
                node.value.append(part.value)
            self._skip()
            node.comma = self._place - 1 if self._takes(",") else None

    def _key(self) -> str:
        if self._text[self._place : self._place + 1] in ("'", '"'):
            key = self._string()
        else:
            match = _NAME.match(self._text, self._place)
            if match is None:
                raise self._error("expected a key")
            self._place = match.end()
            key = match[0]
        self._skip()
        if not self._takes(":"):
            raise self._error("expected ':'")
        self._skip()
        return key

    def _string(self) -> str:
        match = _STRING.match(self._text, self._place)
        if match is None:
            raise self._error("a string without an end")
        self._place = match.end()
        text = _ESCAPE.sub(_unescape, match[0][1:-1])
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")

    def _word(self) -> Any:
        match = _WORD.match(self._text, self._place)
        word = match[0] if match else ""
        value: Any
        if word in _WORDS:
            value = _WORDS[word]
        elif _HEX.fullmatch(word):
            value = int(word, 16)
        elif word.lstrip("+-") in ("Infinity", "NaN") and len(word) < 10:
            value = float(word)
        elif _NUMBER.fullmatch(word) and len(word) < 1_000:
            whole = word.lstrip("+-").isdigit()
            value = int(word) if whole else float(word)
        else:
            raise self._error("expected a value")
        self._place += len(word)
        return value


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) > 1 and code[0] in "ux":
        return chr(int(code[1:], 16))
    return _ESCAPES.get(code, code)


def parse_json(text: str, *, strict: bool = False) -> Any:
    """Return the data of `text`; `strict` allows neither comments nor anything of JSON5.

    Raises:
        DocumentError: It is not in this format.
    """
    if strict:
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise DocumentError(f"{error.msg} at {at(text, error.pos)}") from None
        except RecursionError:
            raise DocumentError(f"more than {MOST_LEVELS} levels") from None
    return _Parser(text).document().value


def is_blank(text: str) -> bool:
    """Return whether `text` has nothing but white space and comments."""
    match = _BLANK.match(text)  # which ends a comment at its first end, as fullmatch would not
    return match is not None and match.end() == len(text)


def edit_json(text: str, changes: list[SetValue], *, comments: bool = True) -> str:
    """Return `text` with the values set; without data it becomes an object.

    Values that are already there are left alone, with their comments.

    Raises:
        DocumentError: It is not in this format, or more than the values would change.
    """
    if not text.strip():
        text = "{}\n"
    elif is_blank(text):
        text += f"{'' if text.endswith(chr(10)) else newline_of(text)}{{}}{newline_of(text)}"
    return set_values(text, changes, parse_json, partial(_edits, comments=comments))


def _edits(text: str, changes: Sequence[SetValue], *, comments: bool) -> list[Edit]:
    root = _Parser(text).document()
    nodes: dict[int, _Node] = {}
    missing: dict[int, list[tuple[Path, SetValue]]] = {}
    for change in changes:
        node, left = root, change.path
        while left and (found := _part(node, left[0])):
            node, left = found, left[1:]
        nodes[node.start] = node
        missing.setdefault(node.start, []).append((left, change))
    return [_edit(text, nodes[start], each, comments=comments) for start, each in missing.items()]


def _edit(text: str, node: _Node, missing: list[tuple[Path, SetValue]], *, comments: bool) -> Edit:
    changes = tuple(change for _, change in missing)
    if not missing[0][0]:  # a scalar
        old = _OWN_COMMENT.match(text, node.end)
        end = old.end() if old else node.end
        return Edit(node.start, end, _written(changes[0], comments), changes)
    tree = tree_of(missing)
    if not isinstance(node.value, dict | list):  # null, where an object is needed
        return Edit(node.start, node.end, _written(tree, comments), changes)
    members = [
        f"{json.dumps(key, ensure_ascii=False)}: {_written(value, comments)}"
        if isinstance(node.value, dict)
        else _written(value, comments)
        for key, value in tree.items()
    ]
    return Edit(*_insertion(text, node, members), changes)


def _part(node: _Node, key: str | int) -> _Node | None:
    found = [part for name, part in node.parts if name == key]
    return found[-1] if found else None  # of equal keys the last one counts


def _written(value: SetValue | dict[str | int, Any], comments: bool) -> str:
    """Return a value to set, or an object of them, as one line."""
    if isinstance(value, SetValue):
        note = value.note.replace("*/", "* /") if comments else ""
        return json.dumps(value.value, ensure_ascii=False) + (f" /* {note} */" if note else "")
    members = (
        f"{json.dumps(key, ensure_ascii=False)}: {_written(inner, comments)}"
        for key, inner in value.items()
    )
    return f"{{{', '.join(members)}}}"


def _insertion(text: str, node: _Node, members: list[str]) -> tuple[int, int, str]:
    """Return where in an object or a list to write its new members, and the text."""
    if not node.parts:
        return _first_insertion(text, node, members)
    first, last = node.parts[0][1], node.parts[-1][1]
    margin = _margin(text, first.start)
    after = last.end if node.comma is None else node.comma + 1
    own = _OWN_COMMENT.match(text, after)
    if own and node.comma is None:
        after = own.end()
    comma, trailing = (",", "") if node.comma is None else ("", ",")
    if margin is None or "\n" not in text[last.end : node.end]:
        return after, after, f"{comma} {', '.join(members)}{trailing}"
    rest = _AFTER.match(text, after)
    assert rest is not None
    line = newline_of(text) + margin
    return after, rest.end(), f"{comma}{rest[0]}{line}{f',{line}'.join(members)}{trailing}"


def _first_insertion(text: str, node: _Node, members: list[str]) -> tuple[int, int, str]:
    inside = text[node.start + 1 : node.end - 1]
    newline = newline_of(text)
    outer = re.match(r"[ \t]*", text[line_start(text, node.start) :])
    assert outer is not None
    unit = "\t" if re.search(r"^\t", text, re.MULTILINE) else "  "
    block = f",{newline}{outer[0]}{unit}".join(members)
    if "\n" in inside:
        end = line_start(text, node.end)
        if not text[end : node.end - 1].strip():
            return end, end, f"{outer[0]}{unit}{block}{newline}"
    elif not inside and node.start == 0:
        return node.start, node.end, f"{{{newline}{unit}{block}{newline}}}"
    return node.start + 1, node.start + 1, ", ".join(members)


def _margin(text: str, value_start: int) -> str | None:
    """Return the indentation of a member or item that begins its line."""
    start = line_start(text, value_start)
    match = re.match(r"""([ \t]*)(?:(?:"[^"\n]*"|'[^'\n]*'|[\w$]+)\s*:\s*)?""", text[start:])
    assert match is not None
    return match[1] if start + match.end() == value_start else None
