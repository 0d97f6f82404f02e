"""The hooks that other plugins and conftest files may implement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_lmstrix.engines.base import Engine


@pytest.hookspec()
def pytest_lmstrix_engines(config: pytest.Config) -> Iterable[Engine]:  # type: ignore[empty-body]
    """Engines beside the built-in ones; `engine:` in a manifest calls them by `name`.

    An engine of the name of a built-in one takes its place. Example, in a `conftest.py`::

        def pytest_lmstrix_engines(config):
            return [MyEngine()]
    """


def registered_engines(config: pytest.Config) -> Iterator[Engine]:
    """What `pytest_lmstrix_engines` was answered with, engines one by one or several at once."""
    for answer in config.hook.pytest_lmstrix_engines(config=config):
        yield from answer if isinstance(answer, Iterable) else [answer]
