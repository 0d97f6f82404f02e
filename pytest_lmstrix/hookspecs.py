"""Hooks for other plugins and conftest files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_lmstrix.engines.base import Engine, EngineOptions
    from pytest_lmstrix.options import Settings


@pytest.hookspec()
def pytest_lmstrix_engines(  # type: ignore[empty-body]
    config: pytest.Config, options: EngineOptions
) -> Iterable[Engine]:
    """Return more engines; the key `engine` of a manifest refers to their `name`.

    An engine with the name of a built-in one replaces it. `options` are those of the run that
    engines need, such as time-outs and hosts. Either argument may be left out. Of several engines
    of a name, each with its own `host`, that of a model's host is used, or else the first.
    Example, in a `conftest.py`::

        def pytest_lmstrix_engines(options):
            hosts = options.hosts_of("mine") or ["127.0.0.1:9000"]
            return [MyEngine(host, timeout=options.reply_timeout) for host in hosts]
    """


def engine_options(settings: Settings, **more: Any) -> EngineOptions:
    """Return the options of a run that engines need; `more` are those that only a run has."""
    from pytest_lmstrix.engines.base import EngineOptions

    return EngineOptions(
        load_timeout=settings.load_timeout,
        reply_timeout=settings.reply_timeout,
        hosts=settings.hosts,
        **more,
    )


def registered_engines(config: pytest.Config, options: EngineOptions) -> Iterator[Engine]:
    """Return the engines of all `pytest_lmstrix_engines` hooks; one may return a single engine."""
    for answer in config.hook.pytest_lmstrix_engines(config=config, options=options):
        yield from answer if isinstance(answer, Iterable) else [answer]
