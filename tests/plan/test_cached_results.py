from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from pytest_lmstrix.core.types import LoadSettings, Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.plan.cached_results import ranges, settled, still_valid
from pytest_lmstrix.plan.plan import KnownRange, planned
from pytest_lmstrix.registry.known import Known

MODEL = Model(id="a", engine="fake", fingerprint="f")
PLANNED = planned(MODEL, None, ())
KNOWN = Known(
    engine="fake",
    host="h",
    fingerprint="f",
    settings="",
    check="full",
    context_length=512,
    verdict=Verdict.OK,
    at=datetime(2026, 1, 1, tzinfo=UTC),
    engine_version="1",
    machine="m",
    check_version=1,
    load_seconds=None,
    ttft_seconds=None,
    decode_tokens_per_second=None,
)


def holding(known: Known, model: Model = MODEL) -> bool:
    return bool(still_valid([known], model, engine_version="1", machine="m"))


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "other"},
        {"engine_version": "2"},
        {"engine_version": None},
        {"machine": "n"},
        {"fingerprint": "g"},
        {"fingerprint": None},
        {"settings": '{"kv_cache_type":"q8_0"}'},
        {"check_version": 2},
    ],
    ids=str,
)
def test_results_with_other_properties_are_not_reused(change: dict[str, object]) -> None:
    assert holding(KNOWN)
    assert not holding(replace(KNOWN, **change))


def test_other_load_settings_are_not_reused() -> None:
    assert not holding(KNOWN, replace(MODEL, load=LoadSettings(kv_cache_type="q8_0")))
    assert not holding(KNOWN, replace(MODEL, prompts="chat"))


def test_only_passed_and_inconclusive_cases_are_cached() -> None:
    failed = replace(KNOWN, verdict=Verdict.OUT_OF_MEMORY)
    assert settled([KNOWN], PLANNED) == {"full[a-512]": 1}
    assert settled([failed], PLANNED) == {}
    assert settled([failed, KNOWN], PLANNED) == {}
    assert settled([KNOWN, failed], PLANNED) == {"full[a-512]": 1}
    unclear = replace(KNOWN, verdict=Verdict.INCONCLUSIVE, check="deep")
    assert settled([unclear], PLANNED) == {"deep[a-512]": 1}


@pytest.mark.parametrize("verdict", list(Verdict))
def test_no_other_verdict_is_cached(verdict: Verdict) -> None:
    is_settled = bool(settled([replace(KNOWN, verdict=verdict)], PLANNED))
    assert is_settled is (verdict in (Verdict.OK, Verdict.INCONCLUSIVE))


def test_ranges_use_the_newest_verdict_of_each_size() -> None:
    def found(size: int, verdict: Verdict, check: str = "full") -> Known:
        return replace(KNOWN, context_length=size, verdict=verdict, check=check)

    known = [
        found(900, Verdict.OUT_OF_MEMORY),
        found(500, Verdict.OK, "limit"),
        found(700, Verdict.TIMEOUT),
        found(800, Verdict.WRONG_ANSWER),
        found(300, Verdict.CRASHED),
        found(900, Verdict.OK),
        found(400, Verdict.OK, "deep"),
        found(9, Verdict.OK, "fast"),
        found(9, Verdict.OK, "test_own"),
    ]
    assert ranges(known, MODEL) == {
        "full[a]": KnownRange(good=500, bad=800),
        "deep[a]": KnownRange(good=400),
    }
