"""`-k` selects what it selects in pytest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from _pytest.mark import KeywordMatcher
from _pytest.mark.expression import Expression
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_lmstrix.hooks.keywords import Keywords
from tests.end_to_end.project import Project

WORDS = ("a", "QWEN", "-512", "full", "tagged", "own", "models.yaml", "test_", "lmstrix", "extra")


@pytest.fixture
def items(project: Project) -> list[pytest.Item]:
    """Tests of models with and without tags, checks with markers, and a test of no model."""
    project.engine(**{"qwen": "", "a-b": ""})
    project.manifest(
        "[{id: qwen, contexts: [512, 1024], tags: [tagged]}, {id: a-b, contexts: [512]}]"
    )
    project.pytester.makepyfile(
        test_own="""
        import pytest
        def test_plain(): pass
        @pytest.mark.parametrize("word", ["a", "tagged"])
        def test_model(lmstrix_model, word): pass
        test_model.extra = 1
        """
    )
    kept = _Kept()
    args = ("--lmstrix", "--collect-only", "-p", "no:hypothesispytest")
    project.pytester.runpytest(*args, plugins=[kept])
    return kept.items


class _Kept:
    """Plugin that keeps what was collected."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = list(session.items)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_same_tests_are_left_as_in_pytest(
    items: list[pytest.Item], data: st.DataObject
) -> None:
    word = st.sampled_from(WORDS)
    keyword = data.draw(
        st.recursive(
            st.one_of(word, word.map(lambda each: f"not {each}")),
            lambda part: st.tuples(part, st.sampled_from(["and", "or"]), part).map(
                lambda parts: f"({' '.join(parts)})"
            ),
        )
    )
    expression = Expression.compile(keyword)
    expected = [item for item in items if expression.evaluate(KeywordMatcher.from_item(item))]
    deselected: list[pytest.Item] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items))
    config: Any = SimpleNamespace(option=SimpleNamespace(keyword=keyword), hook=hook)
    left = [*items]
    Keywords().pytest_collection_modifyitems(config, left)
    of_models = [item for item in items if "test_plain" not in item.name]
    assert len(of_models) == 9
    assert [item for item in left if item in of_models] == [i for i in expected if i in of_models]
    assert deselected == [item for item in of_models if item not in expected]


@pytest.mark.parametrize("keyword", ["full and", "(", "full(x=1)"])
def test_a_wrong_expression_is_left_to_pytest(items: list[pytest.Item], keyword: str) -> None:
    assert items
    config: Any = SimpleNamespace(option=SimpleNamespace(keyword=keyword))
    left = [*items]
    if "=" in keyword:
        with pytest.raises(pytest.UsageError, match="do not support call parameters"):
            Keywords().pytest_collection_modifyitems(config, left)
    else:
        Keywords().pytest_collection_modifyitems(config, left)
    assert left == items
