"""Loads that grant more than was asked for, or that several requests share."""

from __future__ import annotations

import pytest

from pytest_lmstrix.checks.granted import usable_part
from pytest_lmstrix.core.checks import CHECKS
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Case, LoadSettings, Model, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from pytest_lmstrix.plan.cached_results import ranges, settled
from pytest_lmstrix.plan.plan import planned
from pytest_lmstrix.registry.fold import Fold
from tests.checks.laboratory import SKIPPED, Run
from tests.checks.sizes.scripted import Scripted, case, run_of
from tests.standin.fake_engine import FakeInstance
from tests.standin.lmstudio import GrantsMore, SharesContext


def results_of(run: Run, check: str, sizes: list[int]) -> dict[int, Result]:
    found = run.check(check, [case(size) for size in sizes])
    assert SKIPPED not in found.values()
    return {size: results[0] for size, results in found.items() if results is not SKIPPED}


def test_one_load_serves_every_size_up_to_what_it_was_granted() -> None:
    engine = Scripted(GrantsMore(at_least=131_072))
    results = results_of(run_of(engine), "full", [4_096, 8_192, 131_072])
    assert engine.loads == [4_096]
    assert {result.verdict for result in results.values()} == {Verdict.OK}
    granted = "larger context: granted 131,072 tokens, asked for 4,096"
    assert [result.notes for result in results.values()] == [(granted,), (granted,), ()]


def test_a_size_above_what_was_granted_has_a_load_of_its_own() -> None:
    engine = Scripted(GrantsMore(at_least=8_192))
    results_of(run_of(engine), "full", [4_096, 8_192, 16_384])
    assert engine.loads == [4_096, 16_384]


def test_padding_serves_no_other_size() -> None:
    engine = Scripted(GrantsMore(multiple_of=256))
    results_of(run_of(engine), "full", [4_000, 4_096])
    assert engine.loads == [4_000, 4_096]


def test_a_context_that_requests_share_serves_only_the_size_asked_for() -> None:
    engine = Scripted(GrantsMore(at_least=32_768), SharesContext(slots=4))
    results_of(run_of(engine), "full", [4_096, 8_192, 8_193])
    assert engine.loads == [4_096, 8_193]


def test_deep_counts_no_pass_in_a_larger_load_that_requests_share() -> None:
    engine = Scripted(SharesContext(slots=4))
    results = results_of(run_of(engine), "deep", [4_095, 8_192])
    assert {result.verdict for result in results.values()} == {Verdict.CONTEXT_NOT_GRANTED}
    shared = "a request gets 1,023 of the 4,095 tokens granted (one of 4 slots)"
    assert results[4_095].detail.startswith(shared)


def test_deep_withdraws_a_pass_when_the_larger_load_turns_out_to_be_shared() -> None:
    engine = Scripted(SharesContext(slots=4, reported=False))
    found = run_of(engine).check("deep", [case(4_096), case(16_384)])
    (first,), larger = found[4_096], found[16_384]
    assert first.verdict is Verdict.OK
    assert larger[0].verdict is Verdict.CONTEXT_NOT_GRANTED
    assert "a request gets 4,096 of the 16,384 tokens granted (one of 4 slots)" in larger[0].detail
    again = [result for result in larger if result.context_length == 4_096]
    assert [(result.verdict, result.origin) for result in again] == [
        (Verdict.CONTEXT_NOT_GRANTED, "case")
    ]


def test_a_withdrawn_pass_is_no_cached_result_of_any_later_run() -> None:
    fold, models = Fold(), planned(case(4_096).model, None, ())
    for _ in range(3):
        run = run_of(Scripted(SharesContext(slots=4, reported=False)))
        for results in run.check("deep", [case(4_096), case(16_384)]).values():
            for line in results or ():
                fold.add(line)
        run = run_of(Scripted(SharesContext(slots=4, reported=False)))
        fold.add(results_of(run, "full", [16_384])[16_384])  # a pass that explains no failure
        known = fold.known("tiny")
        assert settled(known, models) == {"full[tiny-16384]": CHECKS["full"].version}
        assert ranges(known, models.model)["deep[tiny]"].good is None
        status = fold.status("tiny", check="deep")
        assert status is not None
        assert (status.verified_context, status.smallest_bad) == (None, 4_096)


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        ("n_keep: 9000 >= n_ctx: 8192", 8_192),
        ('{"n_prompt_tokens":9000,"n_ctx":8192}', 8_192),
        ("n_keep: 33000 >= n_ctx: 32768", None),
        ("n_keep: 33000 >= n_ctx: 32512", None),
        ("n_ctx: 0", None),
        ("the prompt is too long", None),
    ],
)
def test_an_overflow_shows_how_much_a_request_gets(text: str, usable: int | None) -> None:
    failure = Failure(text, verdict=Verdict.CONTEXT_TOO_LARGE)
    assert usable_part(failure, 32_768) == usable


class Forgetful(Scripted):
    """Ignores the type of the KV cache, and reports that."""

    def load(self, model: Model, context_length: int, progress: Progress) -> FakeInstance:
        instance = super().load(model, context_length, progress)
        instance.ignored_settings = ("kv_cache_type",)
        instance.notes = ["settings: kv_cache_type is not in force"]
        return instance


def test_a_setting_that_is_not_in_force_is_noted_and_not_recorded() -> None:
    load = LoadSettings(kv_cache_type="q8_0", flash_attention=True)
    model = Model(id="tiny", engine="fake", load=load)
    found = run_of(Forgetful()).check("full", [Case(model=model, context_length=512)])[512]
    assert found is not SKIPPED
    assert found[0].settings == '{"flash_attention":true}'
    assert found[0].notes == ("settings: kv_cache_type is not in force",)
