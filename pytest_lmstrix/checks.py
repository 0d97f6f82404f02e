"""The built-in checks: the tests that a models.yaml stands for."""

from __future__ import annotations

import pytest

from pytest_lmstrix.examining import Examiner
from pytest_lmstrix.fixtures import RunCheck
from pytest_lmstrix.probing import answer_questions, say_hello


@pytest.mark.fast
def test_fast(lmstrix_check: RunCheck) -> None:
    """It loads, grants the context asked for, and answers "Say hello" with anything."""
    lmstrix_check("fast", lambda examiner, case: examiner.check("fast", case, say_hello))


@pytest.mark.full
def test_full(lmstrix_check: RunCheck) -> None:
    """It loads, grants the context asked for, and answers two questions, one at least rightly."""
    lmstrix_check("full", lambda examiner, case: examiner.check("full", case, answer_questions))


@pytest.mark.deep
def test_deep(lmstrix_check: RunCheck) -> None:
    """What is hidden at five depths of a context filled to the brim is recalled."""
    lmstrix_check("deep", Examiner.deep)


@pytest.mark.limit
def test_limit(lmstrix_check: RunCheck) -> None:
    """The largest context length that passes `full`, searched by bisection."""
    lmstrix_check("limit", Examiner.limit)
