"""Hooks for other plugins and conftest files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_lmstrix.engines.base import Engine


@pytest.hookspec()
def pytest_lmstrix_engines(config: pytest.Config) -> Iterable[Engine]:  # type: ignore[empty-body]
    """Return more engines; the key `engine` of a manifest refers to their `name`.

    An engine with the name of a built-in one replaces it. Example, in a `conftest.py`::

        def pytest_lmstrix_engines(config):
            return [MyEngine()]
    """


def registered_engines(config: pytest.Config) -> Iterator[Engine]:
    """Return the engines of all `pytest_lmstrix_engines` hooks; one may return a single engine."""
    for answer in config.hook.pytest_lmstrix_engines(config=config):
        yield from answer if isinstance(answer, Iterable) else [answer]
