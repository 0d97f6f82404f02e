"""A registry whose lines have no `origin` yet, written by a version that recorded searched sizes
as `limit`: model `big` failed `full` at 60,000, then `limit` was run for it and for `none`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_lmstrix.core.types import Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.plan.cached_results import ranges, settled, still_valid
from pytest_lmstrix.plan.plan import KnownRange, planned
from pytest_lmstrix.registry.known import Known
from pytest_lmstrix.registry.store import Registry

GOLDEN = Path(__file__).with_name("golden") / "before_origin.jsonl"
BIG = Model(
    id="big",
    engine="lmstudio",
    fingerprint="size:2000000000 path:publisher/big/big.gguf",
    context_limit=131_072,
    contexts=(60_000,),
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(shutil.copy(GOLDEN, tmp_path / "registry.jsonl"))


def cached(registry: Registry) -> list[Known]:
    known = registry.known("big")
    return still_valid(known, BIG, engine_version="0.3.30+1", machine="3f9ac0d51b27")


def test_old_lines_are_intact_and_have_no_origin(registry: Registry) -> None:
    loaded = registry.load()
    assert (loaded.results, loaded.damaged, loaded.newer, loaded.torn) == (18, (), (), None)
    assert b'"origin"' not in GOLDEN.read_bytes()


def test_old_limit_probes_are_read_as_searches_and_answers_as_cases(
    registry: Registry,
) -> None:
    read = [(r.model, r.check, r.origin, r.context_length, r.verdict) for r in registry.results()]
    too_large = Verdict.OUT_OF_MEMORY
    assert read == [
        ("big", "full", "case", 60_000, too_large),
        ("big", "full", "search", 4_307, Verdict.OK),
        ("big", "full", "search", 16_945, Verdict.OK),
        ("big", "full", "search", 31_886, Verdict.OK),
        ("big", "full", "search", 43_740, Verdict.OK),
        ("big", "full", "search", 54_000, too_large),
        ("big", "full", "search", 48_600, Verdict.OK),
        ("big", "limit", "case", 48_600, Verdict.OK),
        ("big", "full", "search", 51_300, too_large),
        ("big", "full", "search", 49_950, too_large),
        ("big", "full", "search", 49_275, too_large),
        ("big", "full", "search", 48_937, too_large),
        ("none", "limit", "case", 256, too_large),
        ("none", "full", "search", 131_072, too_large),
        ("none", "full", "search", 4_096, too_large),
        ("none", "full", "search", 2_048, too_large),
        ("none", "full", "search", 1_024, too_large),
        ("none", "full", "search", 512, too_large),
    ]


def test_details_of_old_answers_are_unchanged(registry: Registry) -> None:
    details = [r.detail.partition("\n")[0] for r in registry.results() if r.check == "limit"]
    assert details == [
        "works up to 48,600 of 131,072 tokens",
        "works at no size from 256 tokens up",
    ]


def test_the_status_counts_searched_sizes(registry: Registry) -> None:
    status = registry.status("big")
    assert status is not None
    assert (status.status, status.verified_context, status.verified_check) == (
        "completed",
        48_600,
        "full",
    )
    assert (status.smallest_bad, status.smallest_bad_verdict) == (48_937, Verdict.OUT_OF_MEMORY)
    assert registry.verified_context("big") == 48_600
    assert registry.verified_context("big", check="deep") is None
    none = registry.status("none")
    assert none is not None
    assert (none.status, none.verified_context, none.smallest_bad) == ("failed", None, 256)


def test_a_run_reuses_old_passes_and_the_old_limit(registry: Registry) -> None:
    known = cached(registry)
    passed = (4_307, 16_945, 31_886, 43_740, 48_600)
    assert settled(known, planned(BIG, None, ())) == {
        **{f"full[big-{size}]": 1 for size in passed},
        "limit[big-131072]": 1,
    }
    assert ranges(known, BIG) == {"full[big]": KnownRange(good=48_600, bad=48_937)}


def test_a_later_pass_supersedes_old_searched_sizes_below_it(
    registry: Registry,
) -> None:
    first, searched = list(registry.results())[:2]
    passed = replace(searched, check="full", origin="case", context_length=first.context_length)
    registry.append(passed)
    assert registry.verified_context("big") == 60_000
    assert ranges(cached(registry), BIG) == {"full[big]": KnownRange(good=60_000)}
