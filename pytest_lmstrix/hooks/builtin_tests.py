"""The built-in checks as tests; a models.yaml is collected as this module."""

from __future__ import annotations

import pytest

from pytest_lmstrix.hooks.fixtures import RunCheck


@pytest.mark.fast
def test_fast(lmstrix_check: RunCheck) -> None:
    """The model loads, grants the context length, and replies to "Say hello" with any text."""
    lmstrix_check("fast")


@pytest.mark.full
def test_full(lmstrix_check: RunCheck) -> None:
    """The model loads, grants the context length, and answers one of two questions correctly."""
    lmstrix_check("full")


@pytest.mark.deep
def test_deep(lmstrix_check: RunCheck) -> None:
    """Needles at five depths of a completely filled context are recalled."""
    lmstrix_check("deep")


@pytest.mark.limit
def test_limit(lmstrix_check: RunCheck) -> None:
    """Search the largest context length that passes `full`, by bisection."""
    lmstrix_check("limit")


@pytest.mark.speed
def test_speed(lmstrix_check: RunCheck) -> None:
    """Measure prefill and decode rates at depth 0 and in the filled context, three times each."""
    lmstrix_check("speed")


@pytest.mark.capability
def test_capability(lmstrix_check: RunCheck) -> None:
    """What is declared of the model holds: tools, images, JSON by a schema, embeddings, ..."""
    lmstrix_check("capability")
