"""Sixty models: healthy ones of every speed, and one of every broken kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.base import Progress
from tests.standin.fake_engine import FakeEngine, FakeInstance
from tests.standin.lmstudio.models import hostile
from tests.standin.lmstudio.models.behaviours import (
    Behaviour,
    Corrupted,
    Crashes,
    Gibberish,
    GrantsAtMost,
    Guardrail,
    Load,
    MissingFromDisk,
    OutOfMemory,
    Prompt,
    Says,
    SeesLast,
    Unsupported,
)
from tests.standin.lmstudio.models.model import StandInModel


class RaisesAtLoad(Behaviour, frozen=True, tag=True):
    error: type[Exception] = RuntimeError

    def check_load(self, load: Load) -> None:
        raise self.error("as third-party engines do")


class TimesOut(Behaviour, frozen=True, tag=True):
    def check_prompt(self, prompt: Prompt) -> None:
        raise Failure("no progress for 60 s", verdict=Verdict.TIMEOUT, phase="predict")


class TemplateFails(Behaviour, frozen=True, tag=True):
    def check_prompt(self, prompt: Prompt) -> None:
        raise Failure.from_engine("Unknown test: sequence in chat template", phase="predict")


BROKEN: Mapping[str, Sequence[Any]] = {
    "missing": [MissingFromDisk()],
    "corrupted": [Corrupted(at="load")],
    "corrupted-later": [Corrupted()],
    "crashes": [Crashes(times=99)],
    "crashes-later": [Crashes(times=99, at="predict")],
    "crashes-once": [Crashes()],
    "times-out": [TimesOut()],
    "unsupported": [Unsupported()],
    "out-of-memory": [OutOfMemory(above=0)],
    "guardrail": [Guardrail(above=0)],
    "template": [TemplateFails()],
    "grants-less": [GrantsAtMost(tokens=300)],
    "forgets": [SeesLast(tokens=5)],
    "gibberish": [Gibberish(above=0)],
    "empty": [Says()],
    "huge": [Says(text=hostile.HUGE_LINE[:1_000_000])],
    **{
        f"raises-{each.__name__}": [RaisesAtLoad(error=each)]
        for each in (RuntimeError, RecursionError, MemoryError, OSError)
    },
    **{f"says-{name}": [Says(text=text)] for name, text in hostile.TEXTS.items()},
}
ODD: Mapping[str, dict[str, Any]] = {
    "nan": dict.fromkeys(("ttft_seconds", "decode_tokens_per_second"), math.nan),
    "infinite": dict.fromkeys(("ttft_seconds", "prefill_tokens_per_second"), math.inf),
    "absurd": {"decode_tokens_per_second": 1e20, "prompt_tokens": 2**70, "completion_tokens": -5},
    "tiny-numbers": {"ttft_seconds": 5e-324, "decode_tokens_per_second": 5e-324},
    "unmeasured": {"ttft_seconds": None, "decode_tokens_per_second": None, "prompt_tokens": None},
    "<b>::add-mask::x & 'y' |": {},
    "a::b[c]\u202fd": {},
}
HEALTHY = {f"healthy-{n:02}": 1e-4 * 10 ** (6 * n / 24) for n in range(25)}  # up to 100 s

NAMES = (*BROKEN, *ODD, *HEALTHY)


class Engine(FakeEngine):
    def load(self, model: Model, context_length: int, progress: Progress) -> FakeInstance:
        instance = super().load(model, context_length, progress)
        told = ODD.get(model.id, {})
        if model.id in HEALTHY:
            told = {"ttft_seconds": HEALTHY[model.id]}
        predict = instance._predict
        instance._predict = lambda *args, **kwargs: replace(predict(*args, **kwargs), **told)
        return instance


def fleet() -> Engine:
    models = [StandInModel(key=key, behaviours=tuple(it)) for key, it in BROKEN.items()]
    models += [StandInModel(key=key) for key in (*ODD, *HEALTHY)]
    return Engine(tuple(models))
