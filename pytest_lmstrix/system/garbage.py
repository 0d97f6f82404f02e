"""The garbage collector, kept out of the way while very many objects are made that all stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Free no cycles inside the block: each search for them goes through all objects again."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def exempt_all_objects() -> None:
    """Skip what exists now in later searches for cycles, such as pytest's five at its end."""
    gc.freeze()
