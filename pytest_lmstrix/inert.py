"""Registered where a run is not about models: a test that asks for one is skipped."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def lmstrix_model() -> None:
    """A loaded model, in a run with --lmstrix."""
    pytest.skip("models are tested with --lmstrix only")
