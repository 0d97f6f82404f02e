"""Results for the tests of the registry."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict

_OK = Result(
    run="r1",
    at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    model="m",
    engine="lmstudio",
    fingerprint="size:1",
    check="full",
    context_length=8192,
    verdict=Verdict.OK,
    outcome="passed",
)


def a_result(context_length: int = 8192, verdict: str = "ok", **fields: object) -> Result:
    """Return a `full` result of model `m` with `fields` replaced."""
    judged = Verdict(verdict)
    for rate, tokens in (("decode_tokens_per_second", "decode_tokens"),
                         ("prefill_tokens_per_second", "prefill_tokens")):  # fmt: skip
        if fields.get(rate) is not None:
            fields.setdefault(tokens, 128)
    return msgspec.structs.replace(
        _OK,
        context_length=context_length,
        verdict=judged,
        **{"outcome": judged.outcome, **fields},
    )
