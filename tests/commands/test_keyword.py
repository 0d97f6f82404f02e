"""Keyword expressions that select models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.commands.keyword import matcher

NAMES = ("org/Llama-3.2-1b@q4_k_m", "lmstudio", "nightly")


@pytest.mark.parametrize(
    "expression",
    ["", " ", "llama", "LLAMA-3.2", "not qwen", "llama and nightly", "qwen or night", "org/llama",
     "(qwen or llama) and not (gpu or llamacpp)", "1b@q4", "not not llama"],
)  # fmt: skip
def test_words_match_inside_names_case_insensitively(expression: str) -> None:
    assert matcher(expression)(NAMES)


@pytest.mark.parametrize(
    "expression",
    ["qwen", "not llama", "llama and qwen", "(llama or qwen) and gpu", "not (llama or qwen)",
     "llama and not nightly"],
)  # fmt: skip
def test_expressions_that_do_not_match(expression: str) -> None:
    assert not matcher(expression)(NAMES)


@pytest.mark.parametrize(
    "expression",
    ["a b", "a and", "or", "not", "(a", "a)", "()", "a (b)", "b and (a)(b)", "a and and b",
     "((" * 500],
)  # fmt: skip
def test_an_invalid_expression_is_an_error(expression: str) -> None:
    with pytest.raises(ValueError, match="is not a valid expression: use words, and, or, not"):
        matcher(expression)


@given(st.text())
def test_any_text_is_parsed_or_refused(expression: str) -> None:
    try:
        matches = matcher(expression)
    except ValueError:
        return
    assert matches(NAMES) in (True, False)


WORDS = st.sampled_from(["a", "b", "c-1", "d.x"])
EXPRESSIONS = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        inner.map(lambda one: f"not ({one})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) and ({two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) or ({two[1]})"),
    ),
)


@given(EXPRESSIONS, st.sets(WORDS))
def test_not_negates_any_expression(expression: str, names: set[str]) -> None:
    assert matcher(expression)(names) is not matcher(f"not ({expression})")(names)
