"""The pytest11 entry point. Every run with the plugin installed comes here: nothing heavy."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_lmstrix import hookspecs, inert, options, wake

MARKERS = (
    "fast: the model loads, grants the context and says anything (pytest-lmstrix)",
    "full: the model loads, grants the context and answers two questions (pytest-lmstrix)",
    "deep: the model recalls what was hidden in a context filled to the brim (pytest-lmstrix)",
    "limit: the largest context length that works is searched (pytest-lmstrix)",
    "lmstrix(match, contexts): models (a pattern of ids) and context lengths, in tokens, that a"
    " test with the fixture lmstrix_model is for",
)


@pytest.hookimpl(trylast=True)
def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    parser: pytest.Parser, args: list[str]
) -> Generator[None, object, object]:
    """Once each conftest.py has added its options, and before the arguments are parsed."""
    result = yield
    options.replace_short_all(parser, args)
    return result


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    command = options.command(config)
    if command is None or config.option.help:
        return None
    from pytest_lmstrix.commands import run

    return run.run(config, command)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    decision = wake.decide(config)
    if decision.awake:
        from pytest_lmstrix import startup

        try:
            startup.start(config)
        except pytest.UsageError as error:
            if config.option.lmstrix:
                raise
            raise pytest.UsageError(
                f"pytest-lmstrix: {error} (-p no:lmstrix switches the plugin off)"
            ) from None
    else:
        config.pluginmanager.register(inert, "lmstrix-inert")
        config.pluginmanager.register(inert.Header(decision.note), "lmstrix-inert-header")
