from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.core.types import Model, ModelFacts
from pytest_lmstrix.options import selects
from pytest_lmstrix.plan.plan import (
    EMBEDDING_CONTEXT,
    LADDER,
    ladder,
    ordered,
    planned,
    planned_embedding,
    smart_key,
    with_facts,
)


def model(name: str = "a", **fields: object) -> Model:
    return Model(id=name, engine="fake", **fields)  # type: ignore[arg-type]


@given(st.integers(1, 2**31 - 1))
def test_the_ladder_ends_just_below_the_declared_maximum(limit: int) -> None:
    sizes = ladder(limit)
    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] == max(1, limit - 1)
    assert set(sizes[:-1]) == {size for size in LADDER if size < limit - 1}


def test_the_ladder_without_a_declared_maximum() -> None:
    assert ladder(None) == (30_000, 40_000, 60_000, 80_000, 100_000, 120_000)


def test_size_precedence_is_command_line_model_ladder() -> None:
    own = model(contexts=(9, 5), context_limit=100)
    assert planned(own, (7, 3, 7), ()).context_lengths == (3, 7)
    assert planned(own, None, ()).context_lengths == (5, 9)
    assert planned(model(context_limit=100), None, ()).context_lengths == (99,)


def test_the_manifest_overrides_the_engine() -> None:
    facts = ModelFacts(id="a", context_limit=10, size_bytes=20, type="embedding", fingerprint="f")
    known = with_facts(model(context_limit=5), facts)
    assert (known.context_limit, known.size_bytes) == (5, 20)
    assert (known.type, known.fingerprint) == ("embedding", "f")


@pytest.mark.parametrize(
    ("declared", "taken"),
    [(2**31, 2**31 - 1), (10_485_760, 10_485_760), (1, 1), (0, None), (-1, None)],
)
def test_a_declared_maximum_outside_the_valid_sizes_is_clamped_or_ignored(
    declared: int, taken: int | None
) -> None:
    facts = ModelFacts(id="a", context_limit=declared)
    assert with_facts(model(), facts).context_limit == taken


def test_the_manifest_identifies_weights_unknown_to_the_engine() -> None:
    assert with_facts(model(sha256="ab", source="x"), None).fingerprint == "sha256:ab"
    assert with_facts(model(source="x"), None).fingerprint == "path:x"
    assert with_facts(model(), None).fingerprint is None


def test_sources_that_differ_in_their_query_are_different_weights_without_showing_it() -> None:
    queries = ["", "?file=a", "?file=b", "?file=a&token=SECRET"]
    sources = [f"https://user:SECRET@host/f.gguf{query}" for query in queries]
    known = [str(with_facts(model(source=each), None).fingerprint) for each in sources]
    assert len(set(known)) == len(known)
    assert all(each.startswith("path:https://***@host/f.gguf") for each in known)
    assert not any("SECRET" in each or "file=" in each for each in known)
    other_user = sources[1].replace("SECRET", "OTHER") + "#fragment"
    assert with_facts(model(source=other_user), None).fingerprint == known[1]


def test_smart_order_adds_100_000_bytes_per_token_to_the_size() -> None:
    assert smart_key(model(size_bytes=5, context_limit=2)) == 200_005
    assert smart_key(model()) == 0


def test_unknown_values_sort_last_in_both_directions() -> None:
    fleet = [planned(model(name), None, ()) for name in "abc"]
    speeds = {"a": 1.0, "b": None, "c": 3.0}
    for key, expected in (("tps", "acb"), ("tpsd", "cab")):
        got = ordered(fleet, key, {"tps": speeds.get})
        assert "".join(each.model.id for each in got) == expected


@pytest.mark.parametrize(
    ("expression", "active"),
    [
        ("fast", True),
        ("(fast)", True),
        ("fast or slow", True),
        ("fast and nightly", True),
        ("not slow and fast", True),
        ("not fast", False),
        ("not slow", False),
        ("slow", False),
        ("breakfast", False),
        ("fast or not fast", False),
        ("device(serial=1) and fast", True),
        ("fast and", False),
        ("", False),
    ],
)
def test_a_marker_expression_selects_a_check_if_the_check_decides_it(
    expression: str, active: bool
) -> None:
    assert selects(expression, "fast") is active


@pytest.mark.parametrize(
    ("limit", "own", "asked", "sizes"),
    [
        (512, None, None, (512,)),
        (None, None, None, (EMBEDDING_CONTEXT,)),
        (2_048, (256, 512), None, (256, 512)),
        (2_048, (256,), (30_000, 1_024), (1_024,)),
        (512, (256,), (30_000,), (512,)),
        (None, None, (30_000,), (30_000,)),
    ],
)
def test_an_embedding_model_is_planned_up_to_its_declared_maximum(
    limit: int | None,
    own: tuple[int, ...] | None,
    asked: tuple[int, ...] | None,
    sizes: tuple[int, ...],
) -> None:
    model = Model(id="a", engine="e", type="embedding", context_limit=limit, contexts=own)
    assert planned_embedding(model, asked, ()).context_lengths == sizes
