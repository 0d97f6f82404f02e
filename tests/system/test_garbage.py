from __future__ import annotations

import gc
from contextlib import suppress

import pytest

from pytest_lmstrix.system.garbage import collector_paused


@pytest.mark.parametrize("running", [True, False])
def test_the_collector_is_afterwards_as_it_was(running: bool) -> None:
    assert gc.isenabled()
    if not running:
        gc.disable()
    try:
        with suppress(ValueError), collector_paused():
            assert not gc.isenabled()
            raise ValueError
        assert gc.isenabled() is running
    finally:
        gc.enable()
