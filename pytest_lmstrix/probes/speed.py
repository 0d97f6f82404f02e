"""The probe of `speed`: prefill and decode rates at one depth of the context.

Each repetition prefills a text that was never sent before, behind a fill that the engine has in
its prefix cache, and decodes after it. Rates come from the engine's own timings where it reports
them, else from the time to the first token and from the times at which tokens arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple, Protocol

from msgspec import Struct

from pytest_lmstrix.core.measured import DecodeClock, PrefillClock, Speed, Spread
from pytest_lmstrix.core.types import LEAST_RATE_TOKENS, Medians, ProbeResult, Reply
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.probes.speed_text import Amounts, Fill, SpeedTexts

REPETITIONS = 3
WARM_UP_TOKENS = 16
MOST_REQUESTS = 12
"""Requests that one repetition may take, where the model ends its replies early."""
CACHED_SHARE = 0.5
"""A prompt sent again takes at most this share of the time of its first prefill, if the engine
keeps prefixes."""

_TOLERANCE = 0.2  # share by which the tokens of a text may differ from those asked for
_GO_ON = "\n\nThen"  # after an ended reply alone, a model may end the next one at once


class Speaker(Protocol):
    """The part of a `LoadedModel` that is needed here."""

    def generate(self, prompt: str, *, tokens: int) -> Reply:
        """Continue `prompt`, past an end of text where the engine can."""

    def count_tokens(self, text: str) -> int:
        """Count the tokens of `text`."""


class Rate(NamedTuple):
    """One measured rate."""

    tokens: int
    per_second: float
    clock: str


class Depth(Struct, frozen=True, kw_only=True):
    """The repetitions at one depth: a rate of each of them, or none."""

    fill: int
    """Tokens before the measured ones."""
    prefill: tuple[Rate, ...] = ()
    decode: tuple[Rate, ...] = ()
    ttft_seconds: tuple[float, ...] = ()
    problem: str = ""
    """Why a rate is missing."""
    verdict: Verdict = Verdict.OK


class _Obstacle(Exception):
    """A rate cannot be measured; `is_final` if further repetitions are of no use."""

    def __init__(
        self, text: str, verdict: Verdict = Verdict.INCONCLUSIVE, *, is_final: bool = False
    ) -> None:
        super().__init__(text)
        self.verdict = verdict
        self.is_final = is_final


def measure(model: Speaker, texts: SpeedTexts, fill: Fill, amounts: Amounts) -> Depth:
    """Measure the rates behind `fill`: a warm-up, which prefills it, then the repetitions."""
    model.generate(fill.text or texts.fresh(amounts.prefill), tokens=WARM_UP_TOKENS)
    prefill: list[Rate] = []
    decode: list[Rate] = []
    waited: list[float] = []
    obstacles: list[_Obstacle] = []
    for repetition in range(REPETITIONS):
        text = texts.fresh(amounts.prefill)
        prompt = fill.text + text
        reply = model.generate(prompt, tokens=amounts.decode)
        if reply.ttft_seconds is not None:
            waited.append(reply.ttft_seconds)
        try:
            fresh = _prefilled_tokens(model, reply, text, fill, amounts)
            if repetition == 0 and fill.tokens and reply.cached_prompt_tokens is None:
                _check_prefix_is_kept(model, prompt, reply)
            prefill.append(_prefill_rate(reply, fresh))
        except _Obstacle as obstacle:
            obstacles.append(obstacle)
            if obstacle.is_final:
                break
        try:
            decode.append(_decode_rate(model, prompt, reply, amounts.decode))
        except _Obstacle as obstacle:
            obstacles.append(obstacle)
    if not obstacles and any(_clocks(rates) > 1 for rates in (prefill, decode)):
        obstacles.append(_Obstacle("the engine timed only some of the repetitions"))
    return Depth(
        fill=fill.tokens,
        prefill=_complete(prefill),
        decode=_complete(decode),
        ttft_seconds=tuple(waited),
        problem=str(obstacles[0]) if obstacles else "",
        verdict=obstacles[0].verdict if obstacles else Verdict.OK,
    )


def result_of(empty: Depth, filled: Depth, *, seed: int, amounts: Amounts) -> ProbeResult:
    """Return what `speed` found: medians in the filled context, and the rest beside them."""
    prefill, decode = filled.prefill, filled.decode
    speed = Speed(
        depth=filled.fill,
        repetitions=REPETITIONS,
        prefill_spread=_spread(prefill),
        decode_spread=_spread(decode),
        empty_prefill_tokens_per_second=_median(empty.prefill),
        empty_decode_tokens_per_second=_median(empty.decode),
        empty_prefill_spread=_spread(empty.prefill),
        empty_decode_spread=_spread(empty.decode),
        prefill_clock=_prefill_clock([*prefill, *empty.prefill]),
        decode_clock=_decode_clock([*decode, *empty.decode]),
    )
    notes: tuple[str, ...] = ()
    if amounts.are_scaled:
        notes = (
            f"small context: {amounts.prefill:,} tokens prefilled and {amounts.decode:,} decoded",
        )
    at_fault = filled if filled.problem else empty
    return ProbeResult(
        verdict=at_fault.verdict,
        detail=at_fault.problem,
        seed=seed,
        form="completion",
        notes=notes,
        medians=Medians(
            speed=speed,
            ttft_seconds=median(filled.ttft_seconds) if filled.ttft_seconds else None,
            prefill_tokens_per_second=_median(prefill),
            decode_tokens_per_second=_median(decode),
            prefill_tokens=min((rate.tokens for rate in prefill), default=None),
            decode_tokens=min((rate.tokens for rate in decode), default=None),
        ),
    )


def _prefilled_tokens(model: Speaker, reply: Reply, text: str, fill: Fill, amounts: Amounts) -> int:
    """Return the tokens that were prefilled for `reply`.

    Raises:
        _Obstacle: They are not those of `text`.
    """
    arrived = reply.prompt_tokens
    if arrived is None:
        return model.count_tokens(text)
    least = int((1 - _TOLERANCE) * amounts.prefill)
    if arrived < fill.tokens + least:
        sent = fill.tokens + amounts.prefill
        text = f"sent about {sent:,} prompt tokens, {arrived:,} arrived"
        raise _Obstacle(text, Verdict.PROMPT_TRUNCATED, is_final=True)
    if reply.cached_prompt_tokens is None:
        return arrived - fill.tokens
    fresh = arrived - reply.cached_prompt_tokens
    if fresh < max(least, LEAST_RATE_TOKENS):
        raise _Obstacle(f"only {fresh:,} of {amounts.prefill:,} new tokens were prefilled")
    if fill.tokens and fresh > (1 + _TOLERANCE) * amounts.prefill + LEAST_RATE_TOKENS:
        raise _Obstacle(
            f"prefilled {fresh:,} tokens instead of {amounts.prefill:,}:"
            " the engine does not keep the beginning of a prompt",
            is_final=True,
        )
    return fresh


def _check_prefix_is_kept(model: Speaker, prompt: str, reply: Reply) -> None:
    """Ask again, where the engine does not report how much of a prompt was cached.

    Raises:
        _Obstacle: It takes as long as before.
    """
    before, again = _prefill_seconds(reply), _prefill_seconds(model.generate(prompt, tokens=1))
    if before is not None and again is not None and again[0] > CACHED_SHARE * before[0]:
        raise _Obstacle(
            f"a prompt sent again takes {again[0]:.3g} s and not less than the {before[0]:.3g} s"
            " before: the engine does not keep the beginning of a prompt",
            is_final=True,
        )


def _prefill_seconds(reply: Reply) -> tuple[float, PrefillClock] | None:
    if reply.prefill_seconds is not None:
        return reply.prefill_seconds, "engine"
    return None if reply.ttft_seconds is None else (reply.ttft_seconds, "ttft")


def _prefill_rate(reply: Reply, tokens: int) -> Rate:
    measured = _prefill_seconds(reply)
    if measured is None or measured[0] <= 0:
        raise _Obstacle("the engine reports no time of a prefill, nor streams its replies")
    return Rate(tokens, tokens / measured[0], measured[1])


def _decode_rate(model: Speaker, prompt: str, reply: Reply, wanted: int) -> Rate:
    """Return the rate of `wanted` tokens, asked for in parts if a reply ends early."""
    parts = [reply]
    while (tokens := sum(part.completion_tokens or 0 for part in parts)) < wanted:
        if len(parts) == MOST_REQUESTS or any(part.completion_tokens is None for part in parts):
            break
        prompt += parts[-1].reasoning + parts[-1].text + _GO_ON
        parts.append(model.generate(prompt, tokens=wanted - tokens))
    counted = [part for part in parts if part.completion_tokens]
    timed = [_decode_seconds(part) for part in counted]
    spent = [each for each in timed if each is not None]
    tokens = sum(
        part.completion_tokens or 0
        for part, each in zip(counted, timed, strict=True)
        if each is not None
    )
    if counted and not spent:
        raise _Obstacle("the engine reports no decode rate, nor streams its replies")
    seconds = sum(each[0] for each in spent)
    if tokens < LEAST_RATE_TOKENS or seconds <= 0:
        raise _Obstacle(f"decoded {tokens:,} of {wanted:,} tokens: the model ends its replies")
    return Rate(tokens, tokens / seconds, min(each[1] for each in spent))


def _decode_seconds(reply: Reply) -> tuple[float, DecodeClock] | None:
    if reply.decode_tokens_per_second:
        return (reply.completion_tokens or 0) / reply.decode_tokens_per_second, "engine"
    return None if reply.decode_seconds is None else (reply.decode_seconds, "stream")


def _clocks(rates: Iterable[Rate]) -> int:
    return len({rate.clock for rate in rates})


def _complete(rates: Sequence[Rate]) -> tuple[Rate, ...]:
    """Return `rates` if every repetition has one, all by one clock, else nothing."""
    return tuple(rates) if len(rates) == REPETITIONS and _clocks(rates) == 1 else ()


def _median(rates: Iterable[Rate]) -> float | None:
    values = [rate.per_second for rate in rates]
    return median(values) if values else None


def _spread(rates: Iterable[Rate]) -> Spread | None:
    values = [rate.per_second for rate in rates]
    return (min(values), max(values)) if values else None


def _prefill_clock(rates: Sequence[Rate]) -> PrefillClock | None:
    if not rates:
        return None
    return "engine" if rates[0].clock == "engine" else "ttft"


def _decode_clock(rates: Sequence[Rate]) -> DecodeClock | None:
    if not rates:
        return None
    return "engine" if rates[0].clock == "engine" else "stream"
