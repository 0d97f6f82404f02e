"""Collects a models.yaml as a test file, and selects and orders the model tests of a run."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Generator, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_lmstrix.checks.sizes import SizePolicy
from pytest_lmstrix.core.checks import CHECKS
from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH, Case
from pytest_lmstrix.options import Settings, selects
from pytest_lmstrix.plan.plan import Plan, PlannedModel, check_key
from pytest_lmstrix.system.garbage import collector_paused, exempt_all_objects
from pytest_lmstrix.wake import is_same_file, names_manifest, path_of

CASE = "lmstrix_case"
MODEL, EMBEDDING = "lmstrix_model", "lmstrix_embedding"
"""The fixtures of users' tests: a language model, and an embedding model."""
LEFT_OUT = "lmstrix_left_out"
ONE_LOAD = ("deep", "speed")
"""Checks of which one load serves all sizes of a model."""
_LAST = ("deep", "limit", "speed")
"""Checks that run after all sizes of the others, in this order."""
ONE_CASE = {"limit": PlannedModel.whole, "capability": PlannedModel.smallest_roomy}
"""Checks with one case of each model, and which."""
_VERY_MANY = 5_000
"""With more cases than this, each garbage collection takes seconds."""
MOST_SAMPLES = 1_000
_MARK_ARGUMENTS = "match=..., contexts=..., samples=... and at_least=..."
known_left_out = pytest.StashKey[int]()
"""How many cases were left out because they are known."""


class ManifestFile(pytest.Module):
    """The manifest, collected as the module of the built-in checks."""

    wanted: frozenset[str]

    def _getobj(self) -> ModuleType:
        from pytest_lmstrix.hooks import builtin_tests

        return builtin_tests

    def istestfunction(self, obj: object, name: str) -> bool:
        # Before pytest parametrizes it: an item that is dropped costs as much as one that is kept.
        return name.removeprefix("test_") in self.wanted and super().istestfunction(obj, name)


class Collection:
    """The hooks that collect, parametrize, select and order model tests."""

    def __init__(self, settings: Settings, plan: Plan, size_policy: SizePolicy) -> None:
        self._settings = settings
        self._size_policy = size_policy
        self._plan = plan
        self._cases = plan.cases()
        self._model_order = {each.model.id: place for place, each in enumerate(plan.all_models())}
        self._left_out = 0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        with collector_paused():
            return (yield)

    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        if not self._plan.all_models() or not is_same_file(file_path, self._settings.models):
            return None
        manifest = ManifestFile.from_parent(parent, path=file_path)
        expression = parent.config.option.markexpr
        named = names_manifest(parent.config, self._settings.models, inside=True)
        chosen = (
            _named_checks(parent.config, self._settings.models)
            if named
            else [each for each in CHECKS if selects(expression, each)]
        )
        manifest.wanted = frozenset(chosen or ("full",))
        if not self._cases:  # the check that is for embedding models, too
            manifest.wanted &= {"capability"}
        return manifest if manifest.wanted else None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if CASE not in metafunc.fixturenames:
            return
        models, known = self._plan.models, self._cases
        if EMBEDDING in metafunc.fixturenames:
            if MODEL in metafunc.fixturenames:
                text = f"a test has {MODEL} or {EMBEDDING}: one model at a time is loaded"
                pytest.fail(text, pytrace=False)
            models, known = self._plan.embedding, self._plan.embedding_cases()
        cases = {case.id: case for case in known}
        mark = metafunc.definition.get_closest_marker("lmstrix")
        check = check_of(metafunc.definition)
        if check in ONE_CASE:
            case_of_model = ONE_CASE[check]
            asked = self._plan.all_models() if check == "capability" else models
            cases = {each.model.id: case_of_model(each) for each in asked}
        elif mark is not None:
            cases = {case.id: case for case in _cases_of_mark(mark, models, known)}
        params = [
            pytest.param(case, id=name, marks=_marks_of(case.model.tags))
            for name, case in cases.items()
        ]
        if not params:
            kind = "embedding model" if models is self._plan.embedding else "model"
            reason = f"no {kind} of the manifest is selected"
            params = [pytest.param(None, id="no-model", marks=pytest.mark.skip(reason=reason))]
        metafunc.parametrize(CASE, params, indirect=True)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        explicit = bool(config.option.keyword) or any("::" in arg for arg in config.args)
        wanted, left_out, others = [], [], []
        for item in items:
            case = case_of(item)
            if case is None and not asks_for_model(item):
                others.append(item)
            elif explicit or self._settings.all or case is None or not self._is_known(item, case):
                wanted.append(item)
            else:
                left_out.append(item)
        self._left_out = config.stash[known_left_out] = len(left_out)
        # Without `--lmstrix` the tests of the project run, too.
        kept, dropped = ([], others) if config.option.lmstrix else (others, [])
        if left_out or dropped:
            config.hook.pytest_deselected(items=[*left_out, *dropped])
        items[:] = [*kept, *sorted(wanted, key=self._sort_key)]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if len(self._cases) >= _VERY_MANY:
            exempt_all_objects()
        # After --lf and other plugins have deselected tests.
        planned = {each.model.id: each for each in self._plan.models}
        cases: dict[str, list[Case]] = {check: [] for check in ONE_LOAD}
        for item in session.items:
            case, check = case_of(item), check_of(item)
            if (
                case is not None
                and check in cases
                and planned[case.model.id].why_unfit(case.context_length) is None
            ):
                cases[check].append(case)
        for check, its in cases.items():
            self._size_policy.expect(check, its)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Succeed without tests if all have cached results."""
        if self._left_out and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[LEFT_OUT] = self._left_out

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take the count from a worker: all collect the same, their controller nothing."""
        self._left_out = getattr(node, "workeroutput", {}).get(LEFT_OUT, self._left_out)
        node.config.stash[known_left_out] = self._left_out

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._left_out:
            cases = "1 case" if self._left_out == 1 else f"{self._left_out:,} cases"
            terminalreporter.ensure_newline()
            terminalreporter.write_line(
                f"lmstrix: {cases} left out: cached results of the same weights, engine and check;"
                " --lmstrix-all runs them too"
            )

    def _is_known(self, item: pytest.Item, case: Case) -> bool:
        """Return whether `item` has a valid cached result."""
        version = self._plan.known.get(check_key(check_name(item, case), case.id))
        return version == check_version(item)

    def _sort_key(self, item: pytest.Item) -> tuple[int, int, int]:
        """Return the sort key: by model, then by size, with the checks of `_LAST` last."""
        case = case_of(item)
        if case is None:
            return (-1, 0, 0)
        apart = _LAST.index(check) + 1 if (check := check_of(item)) in _LAST else 0
        return (self._model_order[case.model.id], apart, case.context_length)


def _named_checks(config: pytest.Config, manifest: Path) -> list[str]:
    """Return the checks that node ids name; all of them if any other path is given, too."""
    if not all("::" in arg for arg in config.args):
        return list(CHECKS)
    names = [
        arg.partition("::test_")[2].partition("[")[0]
        for arg in config.args
        if is_same_file(path_of(config, arg), manifest)
    ]
    return [check for check in CHECKS if check in names]


@cache
def _marks_of(tags: tuple[str, ...]) -> tuple[pytest.MarkDecorator, ...]:
    return tuple(getattr(pytest.mark, tag) for tag in tags)


def case_of(item: pytest.Item) -> Case | None:
    """Return the case of a model test, else `None`."""
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get(CASE) if callspec is not None else None
    return case if isinstance(case, Case) else None


def check_of(node: pytest.Item | pytest.Collector) -> str | None:
    """Return the name of a built-in check, such as `full`, else `None`."""
    if not isinstance(node, pytest.Function) or not isinstance(node.parent, ManifestFile):
        return None
    return (node.originalname or node.name).removeprefix("test_")


def check_name(item: pytest.Item, case: Case) -> str:
    """Return the `check` of results: a built-in's name, or the node name without the case."""
    check = check_of(item)
    if check is not None:
        return check
    base, _, parameters = item.name.partition("[")
    others = parameters.removesuffix("]").removeprefix(ascii_id(case.id)).removeprefix("-")
    return f"{base}[{others}]" if others else base


def ascii_id(identifier: str) -> str:
    """Return `identifier` as pytest escapes it in node ids."""
    return identifier.encode("unicode_escape").decode("ascii")


def check_version(item: pytest.Item) -> int:
    """Return the version of the check; of a user's test, a checksum of source and location."""
    check = check_of(item)
    if check is not None:
        return CHECKS[check].version
    try:
        source = inspect.getsource(getattr(item, "function"))  # noqa: B009 - not all items have it
    except (AttributeError, OSError, TypeError):
        return 1
    return zlib.crc32(f"{item.nodeid.partition('[')[0]}\n{source}".encode())


def asks_for_model(item: pytest.Item) -> bool:
    """Whether an item uses the fixture `lmstrix_model` or `lmstrix_embedding`."""
    return not {MODEL, EMBEDDING}.isdisjoint(getattr(item, "fixturenames", ()))


def _cases_of_mark(
    mark: pytest.Mark, models: Iterable[PlannedModel], cases: Iterable[Case]
) -> list[Case]:
    """Return the cases that `@pytest.mark.lmstrix(match=..., contexts=...)` selects."""
    problem = _mark_problem(mark)
    if problem is not None:
        pytest.fail(f"@pytest.mark.lmstrix: {problem}", pytrace=False)
    match = mark.kwargs.get("match", "*")
    contexts = mark.kwargs.get("contexts")
    if contexts is not None:
        cases = [
            Case(model=planned.model, context_length=size)
            for planned in models
            for size in sorted(set(contexts))
        ]
    return [
        case
        for case in cases
        if fnmatchcase(case.model.id, match) or fnmatchcase(case.model.name, match)
    ]


def _mark_problem(mark: pytest.Mark) -> str | None:
    """Return the mistake in the arguments of the mark, else `None`."""
    if mark.args:
        return f"takes {_MARK_ARGUMENTS}, by name; got {mark.args[0]!r}"
    for name in mark.kwargs.keys() - {"match", "contexts", "samples", "at_least"}:
        return f"takes {_MARK_ARGUMENTS}, not {name}=..."
    if not isinstance(mark.kwargs.get("match", ""), str):
        return f"match must be a pattern of model ids, got {mark.kwargs['match']!r}"
    contexts = mark.kwargs.get("contexts", ())
    if not isinstance(contexts, list | tuple):
        return f"contexts must be a list of context lengths, got {contexts!r}"
    for size in contexts:
        if type(size) is not int or not 1 <= size <= MAX_CONTEXT_LENGTH:
            return f"contexts must be whole numbers from 1 to {MAX_CONTEXT_LENGTH:,}, got {size!r}"
    return _samples_problem(mark.kwargs)


def _samples_problem(arguments: Mapping[str, object]) -> str | None:
    if "samples" not in arguments:
        return "at_least needs samples=..." if "at_least" in arguments else None
    samples = arguments["samples"]
    if type(samples) is not int or not 1 <= samples <= MOST_SAMPLES:
        return f"samples must be a whole number from 1 to {MOST_SAMPLES:,}, got {samples!r}"
    least = arguments.get("at_least", samples)
    if type(least) is not int or not 1 <= least <= samples:
        return f"at_least must be a whole number from 1 to samples={samples}, got {least!r}"
    return None
