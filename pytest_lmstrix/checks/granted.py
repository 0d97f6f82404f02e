"""What a load granted: padding, and the share of it that a request gets."""

from __future__ import annotations

import re

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.measured import MAX_TOKENS, padded
from pytest_lmstrix.core.types import Model, ProbeResult
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Instance

_ROOM = re.compile(r"\b(?:n_ctx\W{1,4}|available context size \()(\d{1,9})\b")
"""The context that a request had, as llama.cpp names it where a prompt is too long."""


def context_refusal(asked: int, granted: int, requests: int = 1) -> ProbeResult | None:
    """Return the failure of a granted context length, tokens: more than asked is none.

    It is that of each of so many `requests` at once.
    """
    if granted >= asked:
        return None
    detail = f"asked for {asked:,} tokens of context, granted {granted:,}"
    if requests > 1:
        detail = share(requests, granted, asked)
    return ProbeResult(verdict=Verdict.CONTEXT_NOT_GRANTED, detail=detail)


def share(requests: int, tokens: int, asked: int) -> str:
    """Say what each of `requests` at once gets of the context that it was to have."""
    return f"{requests} requests at once get {tokens:,} of {asked:,} tokens each"


def usable_part(failure: Failure, granted: int) -> int | None:
    """Return how much of the `granted` context a request gets, if `failure` shows that, tokens."""
    room = _ROOM.search(failure.text)
    usable = int(room[1]) if room else 0
    return usable if 0 < usable <= granted // 2 else None


def whole(context_length: object) -> int:
    """Return a context length that an engine reports.

    Raises:
        Failure: It is not one.
    """
    if type(context_length) is int and 0 < context_length <= MAX_TOKENS:
        return context_length
    text = f"the engine reports a granted context length of {context_length!r}"
    raise Failure(text, verdict=Verdict.ENGINE_ERROR, phase="load")


class ReportedLoad:
    """What an engine reports of a load of `model`."""

    def __init__(self, model: Model, asked_context_length: int) -> None:
        self.model = model
        self.asked_context_length = asked_context_length
        """Tokens."""
        self.context_length = 0
        """Granted by the engine, read back after the load; tokens. With several requests at once
        what each of them gets."""
        self.usable_context_length = 0
        """The part of it that one request gets, if several share it; tokens."""
        self.ignored_settings: tuple[str, ...] = ()
        """Load settings that are not in force."""
        self.engine_notes: tuple[str, ...] = ()
        """Remarks of the engine, each `topic: text`."""
        self.claimed: tuple[str, ...] = ()
        """Capabilities that the engine claims of the model since its load."""
        self.peak_memory_bytes: int | None = None
        """Peak memory of the engine's process so far, where the engine measures it."""

    @property
    def room(self) -> int:
        """The largest size that can be tested in it: more than asked if more was granted."""
        if self.context_length <= padded(self.asked_context_length):
            return self.asked_context_length
        return max(self.asked_context_length, self.usable_context_length)

    def refusal(self, size: int) -> ProbeResult | None:
        """Return the failure of a case of `size` tokens if less was granted."""
        return context_refusal(size, self.context_length, self.model.load.requests)

    def serves(self, model: Model, context_length: int) -> bool:
        """Whether `model` can be tested at `context_length` in it."""
        asked = self.asked_context_length
        fits = context_length == asked or asked < context_length <= self.room
        return fits and model == self.model

    def read(self, instance: Instance) -> None:
        """Read the optional members of `instance`."""
        self.peak_memory_bytes = getattr(instance, "peak_memory_bytes", None)
        self.ignored_settings = _texts(getattr(instance, "ignored_settings", ()))
        self.engine_notes = _texts(getattr(instance, "notes", ()))
        self.claimed = _texts(getattr(instance, "capabilities", ()))
        usable = getattr(instance, "usable_context_length", None)
        self.usable_context_length = self.context_length if usable is None else whole(usable)
        if self.model.load.requests > 1:  # then what each of them gets counts
            self.context_length = min(self.context_length, self.usable_context_length)

    def explained(self, failure: Failure) -> Failure:
        """Return `failure`, or another one if it shows that a request gets only a share."""
        usable = usable_part(failure, self.context_length)
        if usable is None:
            return failure
        text = (
            f"a request gets {usable:,} of the {self.context_length:,} tokens granted"
            f" (one of {round(self.context_length / usable)} slots): {failure.text}"
        )
        return Failure(text, verdict=Verdict.CONTEXT_NOT_GRANTED, phase=failure.phase)

    def explained_at_once(self, failure: Failure, requests: int) -> Failure:
        """Return a `failure` of so many `requests` at once with what each of them gets."""
        asked = self.asked_context_length
        room = _ROOM.search(failure.text)
        if room and 0 < int(room[1]) < asked:
            text, verdict = share(requests, int(room[1]), asked), Verdict.CONTEXT_NOT_GRANTED
        elif failure.verdict is Verdict.CONTEXT_TOO_LARGE:
            text = f"{requests} requests at once do not get {asked:,} tokens each"
            verdict = failure.verdict
        else:
            return failure
        return Failure(f"{text}: {failure.text}", verdict=verdict, phase=failure.phase)


def _texts(given: object) -> tuple[str, ...]:
    """`given` as texts; third-party engines may have anything under such a name."""
    return tuple(map(str, given)) if isinstance(given, tuple | list) else ()
