"""The built-in checks: the tests that a models.yaml stands for."""

from __future__ import annotations

import pytest

from pytest_lmstrix import probing
from pytest_lmstrix.fixtures import RunCheck


@pytest.mark.fast
def test_fast(lmstrix_check: RunCheck) -> None:
    """It loads, grants the context asked for, and answers "Say hello" with anything."""
    lmstrix_check("fast", probing.say_hello)


@pytest.mark.full
def test_full(lmstrix_check: RunCheck) -> None:
    """It loads, grants the context asked for, and answers two questions, one at least rightly."""
    lmstrix_check("full", probing.answer_questions)
