"""The editor of YAML: what it does not set stays byte for byte."""

from __future__ import annotations

import pytest

from pytest_lmstrix.export.document import DocumentError, SetValue
from pytest_lmstrix.export.yaml_text import edit_yaml, parse_yaml

SET = SetValue(("a", "b"), 5, "lmstrix: a note")
NOTE = "  # lmstrix: a note"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a:\n  b: 4\n", f"a:\n  b: 5{NOTE}\n"),
        ("a:\n  b: 4", f"a:\n  b: 5{NOTE}"),
        ("a:\r\n  b:   4 \r\nc: 1\r\n", f"a:\r\n  b:   5{NOTE}\r\nc: 1\r\n"),
        ("a:\n  b: 4  # lmstrix: old\nc: 1\n", f"a:\n  b: 5{NOTE}\nc: 1\n"),
        ("a:\n  b: 4 # mine\n", "a:\n  b: 5 # mine\n"),
        ("a: {b: 4, c: 1}\n", "a: {b: 5, c: 1}\n"),
        ("a: {c: 1,}\n", "a: {c: 1, b: 5,}\n"),
        ("a:\n", f"a: {{b: 5}}{NOTE}\n"),
        ("a:  # mine\n", "a: {b: 5}  # mine\n"),
        ("a: null\n", "a: {b: 5}" + NOTE + "\n"),
        (
            "a:\n    c: 1  # one\n\n# two\nd: 2\n",
            f"a:\n    c: 1  # one\n    b: 5{NOTE}\n\n# two\nd: 2\n",
        ),
        ("c: 1\n# end\n", f"c: 1\na:\n  b: 5{NOTE}\n# end\n"),
        ("c:\n- x: |\n    text\n", f"c:\n- x: |\n    text\na:\n  b: 5{NOTE}\n"),
        ("---\na:\n  c: [1,\n    2]\n", f"---\na:\n  c: [1,\n    2]\n  b: 5{NOTE}\n"),
        ("é: \U0001f600\na:\n  b: '4'\n", f"é: \U0001f600\na:\n  b: 5{NOTE}\n"),
    ],
)
def test_only_the_value_is_set(before: str, after: str) -> None:
    assert edit_yaml(before, [SET]) == after
    assert edit_yaml(after, [SET]) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: 'run -c 4'\n", f"a: 'run -c 5'{NOTE}\n"),
        ('a: "run -\\x63 4"  # mine\n', 'a: "run -\\x63 5"  # mine\n'),
        ("a: run\n  -c\n  4\nb: 4\n", f"a: run\n  -c\n  5{NOTE}\nb: 4\n"),
        ("a: >-\n  run\n  -c  4\n\nb: 4\n", f"a: >-{NOTE}\n  run\n  -c  5\n\nb: 4\n"),
        ("a: |  # mine\r\n    run 44 \\\r\n     -c 4\r\n",
         "a: |  # mine\r\n    run 44 \\\r\n     -c 5\r\n"),
        (f"a: |{NOTE}\n  4 -c 4", f"a: |{NOTE}\n  4 -c 5"),
        ("a: 'run\n\n  -c 4\n\n  '\n", f"a: 'run\n\n  -c 5\n\n  '{NOTE}\n"),
    ],
)  # fmt: skip
def test_of_a_command_only_the_number_changes(before: str, after: str) -> None:
    new = "-c 5".join(parse_yaml(before)["a"].rsplit("-c 4", 1)).replace("-c  4", "-c  5")
    change = SetValue(("a",), new, "lmstrix: a note")
    assert edit_yaml(before, [change]) == after
    assert edit_yaml(after, [change]) == after


@pytest.mark.parametrize(
    "text",
    [
        "a: {b: 4",
        "a:\n\tb: 4\n",
        "a: 1\n---\na: 2\n",
        "a: 1\n",
        "a: [1]\n",
        "- 1\n",
        "a: {}\n",
        "a:\n  b: &x 4\nc: *x\n",
        "x: &x {b: 4}\na: *x\n",
        "a: !!python/object:os.system {b: 4}\n",
        "a:\n  b: |\n    4\n",
        "",
    ],
)
def test_what_cannot_be_edited_safely_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        edit_yaml(text, [SET])
