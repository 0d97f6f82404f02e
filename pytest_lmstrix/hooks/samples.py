"""Runs the body of a test several times on one load: `@pytest.mark.lmstrix(samples=10)`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from traceback import walk_tb

import pytest
from msgspec import Struct

from pytest_lmstrix.checks.loader import ModelLoader
from pytest_lmstrix.core.sanitize import clean
from pytest_lmstrix.engines.request import Unable
from pytest_lmstrix.registry.history.proportions import Proportion

MOST_SHOWN = 3
"""Failed samples whose errors are shown."""
SHOWN_CHARACTERS = 200


class SampleCount(Struct, frozen=True, kw_only=True):
    """How many samples of a test passed, and how many had to."""

    passed: Proportion
    required: int

    def __str__(self) -> str:
        least, most = (f"{100 * share:.0f} %" for share in self.passed.interval())
        return (
            f"{self.passed} samples passed (95 % interval {least} to {most}),"
            f" at least {self.required} required"
        )


class TooFewPassed(AssertionError):
    """Fewer samples passed than the test requires."""


samples_key = pytest.StashKey[SampleCount]()
"""The samples of a test, on its item."""


class Samples:
    """The hooks around the body of a test."""

    def __init__(self, loader: ModelLoader, is_of_a_reply: Callable[[BaseException], bool]) -> None:
        """A sample fails by the errors that `is_of_a_reply`; all others end the test."""
        self._loader = loader
        self._is_of_a_reply = is_of_a_reply

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        __tracebackhide__ = True
        return (yield from _skip_unable())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        __tracebackhide__ = True
        return (yield from _skip_unable())

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> object:
        """Run all samples of a test; a sample runs by the other implementations of this hook."""
        __tracebackhide__ = True
        asked = _asked(pyfuncitem)
        if asked is None or self._loader.sample_seed is not None:
            return None
        samples, required = asked
        errors = {
            seed: error
            for seed in range(samples)
            if (error := self._sample(pyfuncitem, seed)) is not None
        }
        passed = Proportion(samples - len(errors), samples)
        count = pyfuncitem.stash[samples_key] = SampleCount(passed=passed, required=required)
        if passed.passed >= required:
            return True
        shown = [_line(seed, errors[seed]) for seed in [*errors][:MOST_SHOWN]]
        raise TooFewPassed("\n".join([str(count), *shown])) from next(iter(errors.values()))

    def _sample(self, item: pytest.Function, seed: int) -> BaseException | None:
        """Run the body once; return its error if that is of a reply."""
        self._loader.sample_seed = seed
        try:
            item.ihook.pytest_pyfunc_call(pyfuncitem=item)
        except BaseException as error:
            if not self._is_of_a_reply(error):
                raise
            return _from_body(error, item)
        finally:
            self._loader.sample_seed = None
        return None


def _skip_unable() -> Generator[None, object, object]:
    """Skip a test whose request an engine cannot do."""
    __tracebackhide__ = True
    try:
        return (yield)
    except Unable as error:
        pytest.skip(clean(str(error)))


def _asked(item: pytest.Function) -> tuple[int, int] | None:
    """Return the samples of a test, and how many must pass; `None` for a test without."""
    mark = item.get_closest_marker("lmstrix")
    samples = mark.kwargs.get("samples") if mark is not None else None
    if mark is None or samples is None or "lmstrix_case" not in item.fixturenames:
        return None
    return samples, mark.kwargs.get("at_least", samples)


def _line(seed: int, error: BaseException) -> str:
    words = (str(error).strip().splitlines() or [""])[0]
    return clean(f"seed {seed}: {type(error).__name__}: {words}", SHOWN_CHARACTERS)


def _from_body(error: BaseException, item: pytest.Function) -> BaseException:
    """Return `error` without the part of its traceback that leads to the body of the test."""
    traceback = error.__traceback__
    body = getattr(item.function, "__code__", None)
    depth = [frame.f_code for frame, _ in walk_tb(traceback)]
    for _ in range(depth.index(body) if body in depth else 0):
        traceback = traceback and traceback.tb_next
    return error.with_traceback(traceback)
