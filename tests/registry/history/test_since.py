"""Since when a model works or fails, in registries of two years."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from pytest_lmstrix.core.types import Acceptance, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.health import check_health
from pytest_lmstrix.registry.history.since import Since, most_relevant, short_text, since_text
from pytest_lmstrix.registry.store import Registry
from tests.registry.results import a_result

START = datetime(2024, 11, 1, 3, tzinfo=UTC)
TODAY = date(2026, 10, 31)
SIZES = (4096, 8192, 32_768)


def version_of(night: int) -> str:
    return f"0.4.{night // 30}"


def nights(count: int, *, fails: Iterable[tuple[int, int]] = (), **fields: object) -> list[Result]:
    """Return results of so many nights; `fails` are pairs of night and size."""
    bad = set(fails)
    return [
        a_result(
            size,
            "out_of_memory" if (night, size) in bad else "ok",
            at=START + timedelta(days=night),
            engine_version=version_of(night),
            run=f"r{night}",
            machine="here",
            **fields,
        )
        for night in range(count)
        for size in SIZES
    ]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.jsonl")


def only(registry: Registry) -> Since:
    [since] = registry.since("m")
    return since


def test_two_years_of_passing_are_one_state(registry: Registry) -> None:
    registry.append_many(nights(730))
    since = only(registry)
    assert (since.state, since.began.at, since.flaps) == ("works", START, 0)
    assert since.seconds == 729 * 86_400
    assert since.first_bad is None
    assert since_text(since, today=TODAY) == "Works since 0.4.0 (1 Nov 2024)"


def test_a_break_names_the_last_version_that_worked_and_the_first_that_did_not(
    registry: Registry,
) -> None:
    broken = [(night, size) for night in range(690, 730) for size in SIZES]
    registry.append_many(nights(730, fails=broken))
    since = only(registry)
    assert since.state == "broken"
    assert since.last_good is not None
    assert since.first_bad is not None
    assert since.last_good.at == START + timedelta(days=689)
    assert since.first_bad.at == START + timedelta(days=690)
    assert (since.last_good.engine_version, since.first_bad.engine_version) == ("0.4.22", "0.4.23")
    assert since_text(since, today=TODAY) == "Worked with 0.4.22, broken since 0.4.23 (22 Sep)"
    assert short_text(since) == "broken 2026-09-22 (0.4.23)"


def test_a_break_of_one_size_names_the_size(registry: Registry) -> None:
    registry.append_many(nights(700, fails=[(night, 32_768) for night in range(650, 700)]))
    since = only(registry)
    assert since.first_bad is not None
    assert since.first_bad.context_length == 32_768
    assert since_text(since, today=TODAY) == (
        "Worked at 32,768 until 12 Aug, broken since 0.4.21 (13 Aug)"
    )


def test_a_size_that_never_worked_does_not_break_the_model(registry: Registry) -> None:
    registry.append_many(nights(100, fails=[(night, 32_768) for night in range(100)]))
    assert only(registry).state == "works"


def test_a_model_that_never_worked_is_not_broken(registry: Registry) -> None:
    every = [(night, size) for night in range(100) for size in SIZES]
    registry.append_many(nights(100, fails=every))
    since = only(registry)
    assert (since.state, since.last_good) == ("never_worked", None)
    assert since_text(since, today=TODAY) == "Never worked, tested since 0.4.0 (1 Nov 2024)"


def test_flapping_is_counted(registry: Registry) -> None:
    registry.append_many(nights(400, fails=[(night, 8192) for night in (100, 200, 201, 300)]))
    since = only(registry)
    assert (since.state, since.flaps) == ("works", 6)
    assert since.began.at == START + timedelta(days=301)
    assert since_text(since, today=TODAY) == "Works since 0.4.10 (29 Aug 2025); changed 6 times"


def test_verdicts_on_the_host_or_the_test_and_searched_sizes_do_not_count(
    registry: Registry,
) -> None:
    registry.append_many(nights(10))
    late = {"at": START + timedelta(days=11), "machine": "here"}
    registry.append(a_result(8192, "unreachable", **late))
    registry.append(a_result(8192, "inconclusive", **late))
    registry.append(a_result(8192, "crashed", origin="search", **late))
    assert (only(registry).state, only(registry).flaps) == ("works", 0)


def test_a_missing_model_breaks_the_weights_known_last(registry: Registry) -> None:
    registry.append_many(nights(10))
    gone = a_result(8192, "model_not_found", at=START + timedelta(days=11), machine="here")
    registry.append(msgspec.structs.replace(gone, fingerprint=None))
    assert only(registry).state == "broken"


def test_weights_settings_machines_and_hosts_have_lines_of_their_own(registry: Registry) -> None:
    registry.append_many(nights(3))
    registry.append_many(nights(3, fingerprint="size:2"))
    registry.append_many(nights(3, settings='{"threads":2}'))
    registry.append_many(nights(3, host="10.0.0.7:1234"))
    registry.append(a_result(8192, machine="there"))
    assert len(registry.since("m")) == 5


def test_a_local_server_on_another_port_is_the_same_place(registry: Registry) -> None:
    for port, verdict in ((1234, "ok"), (41_343, "crashed")):
        registry.append(a_result(8192, verdict, host=f"127.0.0.1:{port}"))
    assert only(registry).state == "broken"


def test_an_accepted_break_stays_accepted_until_it_works_again(registry: Registry) -> None:
    registry.append_many(nights(10))
    registry.append(a_result(8192, "crashed", machine="here"))
    accepted = Acceptance(at=datetime(2026, 3, 2, tzinfo=UTC), by="ann", model="m")
    registry.accept([accepted])
    registry.append(a_result(8192, "crashed", machine="here"))
    assert only(registry).accepted == accepted
    assert since_text(only(registry), today=TODAY).endswith("; accepted by ann (2 Mar)")
    registry.append(a_result(8192, machine="here"))
    registry.append(a_result(8192, "crashed", machine="here"))
    assert (only(registry).state, only(registry).accepted) == ("broken", None)


def test_an_acceptance_is_not_damage_for_new_and_old_readers(registry: Registry) -> None:
    registry.append(a_result())
    registry.accept([Acceptance(at=START, by="ann", model="m")])
    loaded = registry.load()
    assert (loaded.results, loaded.damaged, loaded.newer) == (1, (), ())
    assert check_health(registry.path).healthy
    line = msgspec.json.decode(registry.path.read_bytes().splitlines()[1])
    assert line["schema"] == 2, "versions that know only results skip a later schema"


def test_an_acceptance_without_a_model_is_damaged(registry: Registry) -> None:
    registry.path.write_bytes(b'{"schema":2,"kind":"accept","by":"ann"}\n{"schema":2,"kind":"x"}\n')
    loaded = registry.load()
    assert ([flaw.line for flaw in loaded.damaged], [flaw.line for flaw in loaded.newer]) == (
        [1],
        [2],
    )


def test_reading_on_continues_the_lines_of_time(registry: Registry) -> None:
    registry.append_many(nights(5))
    assert only(registry).state == "works"
    registry.append(a_result(4096, "crashed", machine="here", at=START + timedelta(days=5)))
    assert only(registry).state == "broken"


def test_a_break_is_shown_before_a_stronger_check_that_works(registry: Registry) -> None:
    registry.append(a_result(check="deep"))
    registry.append_many((a_result(check="fast"), a_result(8192, "crashed", check="fast")))
    shown = most_relevant(registry.since("m"))
    assert shown is not None
    assert (shown.check, shown.state) == ("fast", "broken")


@pytest.mark.parametrize(("tokens", "kept"), [(None, None), (63, None), (64, 80.0)])
@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_a_rate_from_fewer_than_64_tokens_is_left_out_of_any_registry(
    registry: Registry, kind: str, tokens: int | None, kept: float | None
) -> None:
    rate = f"{kind}_tokens_per_second"
    registry.append(a_result(**{rate: 80.0, f"{kind}_tokens": tokens}))
    assert getattr(next(registry.results()), rate) == kept


def test_host_trouble_withdraws_the_failures_of_its_run(registry: Registry) -> None:
    registry.append_many((a_result(run="r1"), a_result(8192, "crashed", run="r2")))
    assert only(registry).state == "broken"
    registry.append(a_result(8192, "host_trouble", run="r2"))
    assert (only(registry).state, only(registry).flaps) == ("works", 0)


def test_host_trouble_withdraws_the_only_failure_of_a_model(registry: Registry) -> None:
    registry.append_many((a_result(8192, "crashed"), a_result(8192, "host_trouble")))
    assert registry.since("m") == ()


def test_weights_of_the_embedded_engine_that_disappear_are_a_break(registry: Registry) -> None:
    found = nights(3, host="local", engine="llamacpp")
    missing = msgspec.structs.replace(
        found[-1], run="r9", host=None, fingerprint=None, verdict=Verdict.MODEL_NOT_FOUND,
        outcome="xfailed", at=START + timedelta(days=9),
    )  # fmt: skip
    registry.append_many([*found, missing])
    since = only(registry)
    assert (since.state, since.host) == ("broken", None)
