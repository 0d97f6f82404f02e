"""Deselects model tests by `-k`, with pytest's result, before pytest sorts all tests.

It takes less time: the names that the cases of a check share are searched once for each word.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from _pytest.mark import KeywordMatcher
from _pytest.mark.expression import Expression

from pytest_lmstrix.hooks.collection import case_of


class Keywords:
    """Plugin that deselects tests with a case; pytest applies `-k` to the others."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        if not (keyword := config.option.keyword.strip()):
            return
        try:
            expression = Expression.compile(keyword)
        except Exception:  # its type depends on the version; pytest reports it
            return
        shared: dict[object, Callable[[str], bool]] = {}
        kept: list[pytest.Item] = []
        deselected: list[pytest.Item] = []
        for item in items:
            matches = True
            if (key := _key(item)) is not None:
                if key not in shared:
                    shared[key] = _shared_names(item)
                matches = expression.evaluate(_matcher(item.name.lower(), shared[key]))
            (kept if matches else deselected).append(item)
        if deselected:
            config.hook.pytest_deselected(items=deselected)
            items[:] = kept


def _key(item: pytest.Item) -> object | None:
    """Return what is the same for tests that differ only in their name; `None`: unknown."""
    if case_of(item) is None or item.extra_keyword_matches:
        return None
    marks = tuple(mark.name for mark in item.own_markers)
    return item.parent, getattr(item, "originalname", None), marks


def _shared_names(item: pytest.Item) -> Callable[[str], bool]:
    names = KeywordMatcher.from_item(item)
    return cache(KeywordMatcher(names._names - {item.name}))


def _matcher(name: str, shared: Callable[[str], bool]) -> Callable[..., bool]:
    def matches(word: str, /, **arguments: object) -> bool:
        return shared(word, **arguments) or word.lower() in name

    return matches
