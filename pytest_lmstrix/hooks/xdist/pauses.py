"""Pauses of a worker of pytest-xdist between two models, which no other plugin sees."""

from __future__ import annotations

import copy
from functools import partial
from types import ModuleType
from typing import Any, SupportsIndex

import pytest
from _pytest.logging import caplog_records_key
from pluggy import HookCaller

_KNOWN = ("_pytest.", "pytest_lmstrix.")
"""Plugins of these modules see a pause."""
_is_stand_in = pytest.StashKey[bool]()


def is_stand_in(item: pytest.Item) -> bool:
    """Whether `item` stands for a test that is not known yet: what is loaded does not serve it."""
    return item.stash.get(_is_stand_in, False)


class Pauses:
    """Plugin of a worker, which waits for its next model at the index after all tests.

    A worker starts a test only when it knows the next one. With a pause for the next one, it ends a
    model, and unloads it, before the controller chooses what follows. Fixtures of modules and above
    live on until that is known; those that it does not use are torn down in the pause.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        worker = _worker(session.config)
        worker.session = _Session(session)
        worker.run_one_test = partial(_run_one_test, worker, worker.run_one_test)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        if not is_stand_in(item):
            return None
        item.stash[caplog_records_key] = {}
        call = pytest.CallInfo.from_call(
            partial(_hook(item.config, "pytest_runtest_teardown"), item=item, nextitem=nextitem),
            when="teardown",
            reraise=(pytest.exit.Exception, KeyboardInterrupt),
        )
        if call.excinfo is not None:
            report = _hook(item.config, "pytest_runtest_makereport")(item=item, call=call)
            item.ihook.pytest_runtest_logreport(report=report)
        return True


def _run_one_test(worker: Any, run_one_test: Any) -> None:
    items = worker.session.items
    pause = worker.nextitem_index
    if pause != len(items):
        run_one_test()
        return
    following = worker.nextitem_index = worker.torun.get()
    nextitem = items[following] if isinstance(following, int) else None
    run = _hook(worker.config, "pytest_runtest_protocol")
    run(item=_stand_in(items[worker.item_index]), nextitem=nextitem)
    worker.sendevent("runtest_protocol_complete", item_index=pause, duration=0)


class _Session:
    """The session as the worker sees it: with something at the index of a pause."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self.items = _Items(session.items)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class _Items(list[pytest.Item]):
    """Tests, followed by what stands for the next test of the last one that was taken."""

    _last: pytest.Item

    def __getitem__(self, index: SupportsIndex) -> pytest.Item:  # type: ignore[override]
        if index == len(self):
            return _stand_in(self._last)
        self._last = super().__getitem__(index)
        return self._last


def _stand_in(test: pytest.Item) -> pytest.Item:
    """Return what looks like `test`, as the next test may be of the same class and module."""
    made = copy.copy(test)
    made.stash = pytest.Stash()
    made.stash[_is_stand_in] = True
    made._report_sections = []
    vars(made)["funcargs"] = {}
    return made


def _worker(config: pytest.Config) -> Any:
    """Return what runs the tests of a worker: xdist has no public name for it."""
    plugins = config.pluginmanager.get_plugins()
    return next(each for each in plugins if type(each).__name__ == "WorkerInteractor")


def _hook(config: pytest.Config, name: str) -> HookCaller:
    """Return a hook of pytest's own plugins and these, for what is no test to any other."""
    manager = config.pluginmanager
    others = [each for each in manager.get_plugins() if not _module_of(each).startswith(_KNOWN)]
    return manager.subset_hook_caller(name, remove_plugins=others)


def _module_of(plugin: object) -> str:
    return plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
