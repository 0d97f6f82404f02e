"""The pytest11 entry point. Every run with the plugin installed imports it: no heavy imports."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from pytest_lmstrix import hookspecs, inert, options, wake

pytest.register_assert_rewrite("pytest_lmstrix.testing")

MARKERS = (
    "fast: the model loads, grants the context and replies with any text (pytest-lmstrix)",
    "full: the model loads, grants the context and answers one of two questions (pytest-lmstrix)",
    "deep: the model recalls needles hidden in a completely filled context (pytest-lmstrix)",
    "limit: searches the largest context length that passes full (pytest-lmstrix)",
    "speed: measures prefill and decode rates, also in a filled context (pytest-lmstrix)",
    "capability: declared capabilities hold: tools, images, JSON, thinking (pytest-lmstrix)",
    "lmstrix(match, contexts, samples, at_least): selects models (a pattern of ids) and context"
    " lengths (tokens) for a test with lmstrix_model or lmstrix_embedding; its body runs as often"
    " as samples, and at_least so many must pass",
)


@pytest.hookimpl(trylast=True)
def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    parser: pytest.Parser, args: list[str]
) -> Generator[None, object, object]:
    """Replace `--all` after the options of each conftest.py, and before the final parsing."""
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
    from pytest_lmstrix.system.workflow_commands import commands_removed

    with commands_removed(pytest.UsageError):
        return run.run(config, command)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Start one worker for each host with `-n auto`, unless other tests run beside the models."""
    beside_others = config.getini("lmstrix") and not config.option.lmstrix
    named = "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ
    if beside_others or named or not wake.decide(config).awake:
        return None
    from pytest_lmstrix.hooks.xdist.controller import auto_workers

    return auto_workers(config)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    decision = wake.decide(config)
    if decision.awake:
        from pytest_lmstrix import startup
        from pytest_lmstrix.system.workflow_commands import commands_removed

        with commands_removed(pytest.UsageError):
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
        config.pluginmanager.register(inert.HeaderLine(decision.note), "lmstrix-inert-header")
