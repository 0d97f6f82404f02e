"""Reads answers and refusals of llama.cpp's server."""

from __future__ import annotations

from typing import TypeVar

import httpx
import msgspec
from msgspec import Struct

from pytest_lmstrix.core.failure import Failure

_T = TypeVar("_T")


class _Error(Struct):
    message: str
    type: str | None = None


class _Refusal(Struct):
    error: _Error


def parsed_answer(data: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise Failure.from_engine(f"llama.cpp sent an unexpected answer: {error}") from error


def decoded_answer(response: httpx.Response, kind: type[_T]) -> _T:
    if response.is_error:
        raise refusal_in(response.content)
    return parsed_answer(response.content, kind)


def refusal_in(answer: bytes) -> Failure:
    try:
        error = msgspec.json.decode(answer, type=_Refusal).error
    except msgspec.MsgspecError:
        return Failure.from_engine(
            f"llama.cpp refused: {answer.decode(errors='replace')}", phase="predict"
        )
    return Failure.from_engine(error.message, phase="predict", code=error.type)
