"""Where models are tested: the hosts they ask for, those where they fit, and their slots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pytest_lmstrix.core.types import Host, Model
from pytest_lmstrix.plan.hosts.placement import asked_of, placed, slots_taken, without_host
from pytest_lmstrix.plan.plan import PlannedModel

GB = 10**9
SMALL = Host(address="s:1", name="small", tags=("lab",), memory_bytes=8 * GB)
BIG = Host(address="b:1", name="big", tags=("lab", "gpu"), memory_bytes=24 * GB, slots=2)
OPEN = Host(address="o:1")
FLEET = (SMALL, BIG, OPEN)


def planned(**model: object) -> PlannedModel:
    made = Model(id="m", engine="lmstudio", **model)  # type: ignore[arg-type]
    return PlannedModel(model=made, context_lengths=(512, 1024, 2048))


@pytest.mark.parametrize(
    ("words", "hosts"),
    [
        ((), FLEET),
        (("lab",), (SMALL, BIG)),
        (("gpu", "small"), (SMALL, BIG)),
        (("big",), (BIG,)),
        (("s:1",), ()),
    ],
)
def test_a_name_or_a_tag_is_enough(words: tuple[str, ...], hosts: tuple[Host, ...]) -> None:
    assert asked_of(planned(hosts=words).model, FLEET) == hosts


def test_without_a_host_every_size_is_left_out_with_the_reason() -> None:
    left_out = without_host(planned(hosts=("gpu",)), [OPEN, SMALL])
    assert left_out.why_unfit(1) == (
        "asks for a host that is or has gpu; the hosts of engine lmstudio in this run: o:1, small"
    )


def test_a_model_goes_where_most_of_its_sizes_fit() -> None:
    def needs(size: int) -> int:
        return 8 * GB + size * 10**6  # too much for the small host at any size

    assert placed(planned(), (SMALL, BIG), needs).hosts == ("b:1",)
    assert placed(planned(), (SMALL, BIG), needs).why_unfit(10**6) is None, "not known"
    only = placed(planned(size_bytes=9 * GB), (SMALL,), needs)
    assert only.why_unfit(1) == (
        "does not fit: needs at least 8.5 GB at 512 tokens; small has 8.0 GB"
    )


def test_sizes_above_the_one_that_fits_are_left_out() -> None:
    found = placed(planned(), (SMALL,), lambda size: size * 6 * 10**6)
    assert [found.why_unfit(size) is None for size in (1, 512, 1024, 1300)] == [True] * 4
    assert "needs at least 12.3 GB at 2,048 tokens; small has 8.0 GB" in str(found.why_unfit(2048))
    assert found.why_unfit(4096) is not None


def test_nothing_is_left_out_where_memory_is_unknown() -> None:
    assert placed(planned(), (OPEN,), lambda size: pytest.fail("asked")) == planned()
    assert placed(planned(), (SMALL, OPEN), lambda size: 99 * GB).hosts == ("o:1",)
    assert placed(planned(), (SMALL,), lambda size: None).why_unfit(2048) is None


@given(
    needs=st.lists(st.integers(0, 100), min_size=3, max_size=3).map(sorted),
    memories=st.lists(st.none() | st.integers(1, 100), min_size=1, max_size=5),
)
def test_every_size_is_tested_only_where_it_fits(
    needs: list[int], memories: list[int | None]
) -> None:
    by_size = dict(zip((512, 1024, 2048), needs, strict=True))
    hosts = tuple(
        Host(address=str(number), memory_bytes=memory, slots=3)
        for number, memory in enumerate(memories)
    )
    found = placed(planned(), hosts, by_size.__getitem__)
    used = [host for host in hosts if host.address in found.hosts or not found.hosts]
    assert used
    for size, need in by_size.items():
        fits = [host for host in hosts if host.memory_bytes is None or need <= host.memory_bytes]
        assert (found.why_unfit(size) is None) == bool(fits)
        for host in used:
            assert host in fits or not fits
            if host in fits and host.memory_bytes is not None:
                share = host.memory_bytes / host.slots
                assert share * slots_taken(found, size, host) >= need, "never more than there is"


def test_a_model_takes_one_slot_unless_it_needs_more_than_its_share() -> None:
    found = placed(planned(size_bytes=13 * GB), (BIG,), lambda size: 11 * GB + size * 10**6)
    assert [slots_taken(found, size, BIG) for size in (512, 1024, 2048)] == [1, 2, 2]
    assert slots_taken(found, 100, BIG) == 2, "by the size of its weights"
    assert slots_taken(found, 2048, replace(BIG, memory_bytes=None)) == 1
    assert slots_taken(None, 2048, BIG) == 1
