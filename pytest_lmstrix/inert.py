"""Plugin of runs without model tests: skips tests with the fixture `lmstrix_model`."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def lmstrix_model() -> None:
    """A loaded model, in a run with --lmstrix."""
    pytest.skip("models are tested with --lmstrix only")
