"""The editor of JSON with comments: what it does not set stays byte for byte."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pytest_lmstrix.export.document import DocumentError, SetValue, look_up, same, with_changes
from pytest_lmstrix.export.jsonc import edit_json, parse_json

SET = SetValue(("a", "b"), 5, "lmstrix: a note")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '{\n  "a": {"b": 5 /* lmstrix: a note */}\n}\n'),
        ("{}", '{\n  "a": {"b": 5 /* lmstrix: a note */}\n}'),
        ('{"a":{"b":4}}', '{"a":{"b":5 /* lmstrix: a note */}}'),
        ('{"a":{"b":4 /* lmstrix: old */}}', '{"a":{"b":5 /* lmstrix: a note */}}'),
        ('{"a":{"b":4 /* mine */}}', '{"a":{"b":5 /* lmstrix: a note */ /* mine */}}'),
        ('{"a": {"c": 1}}', '{"a": {"c": 1, "b": 5 /* lmstrix: a note */}}'),
        ('{"a": {"c": 1,}}', '{"a": {"c": 1, "b": 5 /* lmstrix: a note */,}}'),
        ('{"a": null}', '{"a": {"b": 5 /* lmstrix: a note */}}'),
        (
            '{\n\t"a": {\n\t\t"c": 1 // one\n\t} // two\n}\n',
            '{\n\t"a": {\n\t\t"c": 1, // one\n\t\t"b": 5 /* lmstrix: a note */\n\t} // two\n}\n',
        ),
        (
            '{\r\n  "c": [1],\r\n}\r\n',
            '{\r\n  "c": [1],\r\n  "a": {"b": 5 /* lmstrix: a note */},\r\n}\r\n',
        ),
        (
            '{\n  "a": {\n    // nothing yet\n  }\n}',
            '{\n  "a": {\n    // nothing yet\n    "b": 5 /* lmstrix: a note */\n  }\n}',
        ),
        ("{a: {'b': 0x10, c: .5}}", "{a: {'b': 5 /* lmstrix: a note */, c: .5}}"),
        ('{"a": {"b": 1, "b": 2}}', '{"a": {"b": 1, "b": 5 /* lmstrix: a note */}}'),
    ],
)
def test_only_the_value_is_set(before: str, after: str) -> None:
    assert edit_json(before, [SET]) == after


def test_an_equal_value_is_left_alone_with_its_comment() -> None:
    text = '{"a": {"b": 5 /* lmstrix: an older note */}}'
    assert edit_json(text, [SET]) == text


def test_a_note_cannot_end_its_comment() -> None:
    new = edit_json("{}", [SetValue(("a",), 1, 'lmstrix: */ "x": 1')])
    assert parse_json(new) == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"b": 4}',
        '{"a": {"b": ',
        '{"a": "no end}',
        '{"a" 1}',
        '{"a": 1 "b": 2}',
        '{"a": 1} {',
        "[" * 300,
        '{"a": wrong}',
        '{"a": 1 /* no end }',
        "{,}",
    ],
)
def test_damaged_text_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(DocumentError, match=r"line 1, column \d+|levels"):
        edit_json(text, [SET])


@pytest.mark.parametrize("text", ['{"a": 1}', '{"a": [1]}', "[1]", '"text"'])
def test_no_value_is_replaced_by_an_object(text: str) -> None:
    with pytest.raises(DocumentError, match="not an object"):
        edit_json(text, [SET])


@pytest.mark.parametrize("text", ['{"a": 1,}', "{} // no", "{'a': 1}", '{"a": 1'])
def test_strict_json_has_no_liberties(text: str) -> None:
    with pytest.raises(DocumentError, match="line 1, column"):
        parse_json(text, strict=True)


KEYS = st.sampled_from(["a", "b", "c", 'é"\\', "", "\U0001f600"])
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
BLANK = st.sampled_from(["", " ", "\n", "\r\n\t", " // note }\n", "/* , */", "\n  ", "\ufeff"])


@st.composite
def written(draw: st.DrawFn, data: Any) -> str:
    """Draw a text of `data`, with comments, trailing commas and white space anywhere."""
    blank = lambda: draw(BLANK)  # noqa: E731
    if isinstance(data, dict | list):
        parts = []
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            name = f"{json.dumps(key)}{blank()}:" if isinstance(data, dict) else ""
            parts.append(f"{blank()}{name}{blank()}{draw(written(value))}{blank()}")
        text = ",".join(parts)
        if parts and draw(st.booleans()):
            text += "," + blank()
        opening, closing = "{}" if isinstance(data, dict) else "[]"
        return f"{opening}{blank()}{text}{closing}"
    return json.dumps(data, ensure_ascii=draw(st.booleans()))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), root=st.dictionaries(KEYS, DATA, max_size=4))
def test_any_text_keeps_all_but_the_value(data: st.DataObject, root: dict[str, Any]) -> None:
    text = data.draw(BLANK) + data.draw(written(root)) + data.draw(BLANK)
    assert same(parse_json(text), root)
    path = tuple(data.draw(st.lists(KEYS, min_size=1, max_size=3)))
    change = SetValue(path, data.draw(st.integers(1, 10**7)), "lmstrix: a note")
    try:
        wanted = with_changes(root, [change])
    except DocumentError:
        with pytest.raises(DocumentError):
            edit_json(text, [change])
        return
    assume(not isinstance(look_up(root, path), str))
    assume(not same(look_up(root, path), change.value))  # which is left alone, without a note
    new = edit_json(text, [change])
    assert same(parse_json(new), wanted)
    assert kept(text, new)
    again = SetValue(path, change.value + 1, change.note)
    assert edit_json(new, [again]).count("lmstrix: ") == new.count("lmstrix: ")


def kept(old: str, new: str) -> bool:
    """Return whether `new` is `old` with insertions in at most two places.

    The value that is replaced, null or a number, is the only text that may be missing.
    """
    start = len(common(old, new))
    end = len(common(old[start:][::-1], new[start:][::-1]))
    replaced = old[start : len(old) - end]
    if re.fullmatch(r"[\w.+-]*", replaced):  # nothing, or a part of a number or of null
        return True
    # A comma after the last value, and the new member further on, behind a comment.
    inserted = new[start : len(new) - end]
    return inserted.startswith(",") and replaced in inserted


def common(one: str, other: str) -> str:
    end = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[: min(len(one), len(other)) if end is None else end]
