"""Encodes results as lines of the registry, which are JSON Lines, and decodes them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from operator import attrgetter
from typing import BinaryIO, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from pytest_lmstrix.core.measured import MAX_SIZE_BYTES, MAX_TOKENS, MEASURED, is_sane
from pytest_lmstrix.core.types import LEAST_RATE_TOKENS, MAX_CONTEXT_LENGTH, Acceptance, Result

SCHEMA = 1
"""The schema of results."""
NEWEST_SCHEMA = 2
"""The newest schema that this version understands: that of `Acceptance`."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # editors on Windows may put it before the first line
MAX_LINE_BYTES = 16_000_000
"""A longer line is damaged; only its beginning is read into memory."""

_KEPT_BYTES = 1_000
"""Kept of a line that is too long."""

_CHUNK_BYTES = 1 << 20


class Flaw(Struct, frozen=True, kw_only=True):
    """A line without a result.

    `damaged`: unreadable. `newer`: of a schema that a later version wrote, kept unchanged.
    `torn`: an incomplete last line; its writer was killed or is still writing.
    """

    line: int
    """Counted from 1."""
    kind: Literal["damaged", "newer", "torn"]
    reason: str
    raw: bytes
    """The line with its newline, cut if it is longer than `MAX_LINE_BYTES`."""
    size_bytes: int
    """The whole length of the line."""


class _Head(Struct, frozen=True):
    schema: int
    kind: str = ""


_decode = msgspec.json.Decoder(Result).decode
_decode_acceptance = msgspec.json.Decoder(Acceptance).decode
_decode_head = msgspec.json.Decoder(_Head).decode


def encode(result: Result) -> bytes:
    """Encode `result` as one line with its newline, and verify that it can be decoded.

    Raises:
        ValueError: It violates the schema.
    """
    if result.at.tzinfo is None:
        raise ValueError("at must have a time zone")
    result = msgspec.structs.replace(result, at=_in_utc(result.at))
    try:
        body = msgspec.json.encode(result)
    except UnicodeEncodeError:
        # A reply may contain half a surrogate pair, which cannot be encoded as UTF-8.
        text = json.dumps(msgspec.to_builtins(result), ensure_ascii=False)
        body = msgspec.json.encode(json.loads(text.encode("utf-8", "replace")))
    # Both are omitted when they are defaults, but readers need them.
    if result.origin == "case":
        body = b'{"origin":"case",' + body[1:]
    if result.schema == SCHEMA:
        body = b'{"schema":%d,' % SCHEMA + body[1:]
    decode(body)
    if len(body) >= MAX_LINE_BYTES:
        raise ValueError(f"has {len(body):,} bytes, {MAX_LINE_BYTES:,} are allowed")
    return body + b"\n"


def encode_acceptance(acceptance: Acceptance) -> bytes:
    """Encode `acceptance` as one line with its newline.

    Raises:
        ValueError: It violates the schema.
    """
    body = msgspec.json.encode(msgspec.structs.replace(acceptance, at=_in_utc(acceptance.at)))
    _decode_acceptance(body)
    return body + b"\n"


def decode(raw: bytes) -> Result:
    """Decode the result in a line.

    Raises:
        ValueError: It has none; the text gives the reason.
    """
    try:
        result = _decode(raw)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if result.schema != SCHEMA:
        raise ValueError(f"schema must be {SCHEMA}, got {result.schema}")
    if not 0 < result.context_length <= MAX_CONTEXT_LENGTH:
        raise ValueError(
            f"context_length must be 1 to {MAX_CONTEXT_LENGTH:,}, got {result.context_length:,}"
        )
    if not _are_usual(result):
        _check_numbers(result)
    for depth in result.recall or ():
        if _DEPTH.fullmatch(depth) is None:
            raise ValueError(f"recall must have depths from 0 to 1, got {depth[:60]!r}")
    if result.check == "limit" and b'"origin":' not in raw:
        result = _with_origin(result)
    if result.at.tzinfo is not UTC:
        result = msgspec.structs.replace(result, at=_in_utc(result.at))
    return _without_short_rates(result)


def _without_short_rates(result: Result) -> Result:
    """Remove rates from too few tokens, or from an unknown number, as old lines have."""
    if result.decode_tokens_per_second is not None and _are_few(result.decode_tokens):
        force_setattr(result, "decode_tokens_per_second", None)
    if result.prefill_tokens_per_second is not None and _are_few(result.prefill_tokens):
        force_setattr(result, "prefill_tokens_per_second", None)
    return result


def _are_few(tokens: int | None) -> bool:
    return tokens is None or tokens < LEAST_RATE_TOKENS


def _are_usual(result: Result) -> bool:
    """Whether all numbers are in their ranges for sure; a quick look, since most lines are."""
    numbers = [number for number in _usual_numbers(result) if number is not None]
    large = (result.peak_memory_bytes or 0) | (result.estimated_memory_bytes or 0)
    large |= result.seed or 0
    return min(numbers) >= 0 and max(numbers) <= _LEAST_MAXIMUM and large >> 63 == 0


def _check_numbers(result: Result) -> None:
    for value, name in zip(_measured_values(result), _MEASURED, strict=True):
        if value is not None and not is_sane(value, MEASURED[name]):
            raise ValueError(f"{name} must be from 0 to {MEASURED[name]:,}, got {value}")
    values = result.granted_context_length, result.seed, result.check_version
    for value, (name, least, most) in zip(values, _WHOLE_NUMBERS, strict=True):
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name} must be from {least:,} to {most:,}, got {value:,}")


_MEASURED = tuple(name for name in Result.__struct_fields__ if name in MEASURED)
_measured_values = attrgetter(*_MEASURED)
_LEAST_MAXIMUM = min(MEASURED.values())
_usual_numbers = attrgetter(
    "check_version",
    "granted_context_length",
    *(name for name in _MEASURED if MEASURED[name] < MAX_SIZE_BYTES),
)
_WHOLE_NUMBERS = (
    ("granted_context_length", 0, MAX_TOKENS + 256),
    ("seed", -(2**63), 2**64 - 1),
    ("check_version", -(2**63), 2**64 - 1),
)
_DEPTH = re.compile(r"0|1|0\.[0-9]{1,20}|1\.0{1,20}")
_LIMIT_ANSWERS = ("works up to ", "works at no size ")


def _with_origin(old: Result) -> Result:
    """Return an old `limit` line, which has no `origin`, as an answer or as a searched size.

    Before there were origins, all sizes of a search were recorded as `limit`, also those tried
    after a failure of `full`.
    """
    if old.detail.startswith(_LIMIT_ANSWERS):
        return old
    return msgspec.structs.replace(old, check="full", origin="search")


def _in_utc(at: datetime) -> datetime:
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"at must be a time of the years 1 to 9999 in UTC, got {at}") from None


class Scan:
    """Reads `stream` line by line from its current position; a damaged line affects no other."""

    def __init__(self, stream: BinaryIO, next_line: int = 1) -> None:
        self._stream = stream
        self.next_line = next_line
        """Number of the line at which the next scan begins, once this one has finished."""
        self.line = 0
        """Number of the last line yielded."""

    def __iter__(self) -> Iterator[Result | Acceptance | Flaw]:
        number, complete = self.next_line, True
        while complete and (raw := self._stream.readline(MAX_LINE_BYTES + 1)):
            complete = raw.endswith(b"\n")
            item: Result | Acceptance | Flaw | None
            if len(raw) > MAX_LINE_BYTES:
                item, complete = self._too_long(number, raw)
            else:
                item = _item(number, raw)
            if item is not None:
                self.line = number
                yield item
            number += complete  # else its writer may still be adding to this line
        self.next_line = number

    def _too_long(self, number: int, raw: bytes) -> tuple[Flaw, bool]:
        """Skip the rest of a line; also return whether it has an end."""
        size, last = len(raw), raw
        while not last.endswith(b"\n") and (last := self._stream.readline(_CHUNK_BYTES)):
            size += len(last)
        complete = last.endswith(b"\n")
        flaw = Flaw(
            line=number,
            kind="damaged" if complete else "torn",
            reason=f"has {size:,} bytes, {MAX_LINE_BYTES:,} are allowed",
            raw=raw[:_KEPT_BYTES] + b"\n" * complete,
            size_bytes=size,
        )
        return flaw, complete


def _item(number: int, raw: bytes) -> Result | Acceptance | Flaw | None:
    """Return the contents of a line; `None` when it is blank."""
    try:
        return decode(raw)
    except ValueError as error:
        return None if raw.isspace() else _second_look(number, raw, str(error))


def _second_look(number: int, raw: bytes, reason: str) -> Result | Acceptance | Flaw:
    kind: Literal["damaged", "newer", "torn"] = "damaged" if raw.endswith(b"\n") else "torn"
    with contextlib.suppress(ValueError, RecursionError):
        if raw.startswith(_BYTE_ORDER_MARK):
            return decode(raw.removeprefix(_BYTE_ORDER_MARK))
        head = _decode_head(raw)
        if (head.schema, head.kind) == (NEWEST_SCHEMA, "accept"):
            try:
                return _decode_acceptance(raw)
            except ValueError as error:
                reason = str(error)
        elif head.schema > SCHEMA:
            kind = "newer"
    return Flaw(line=number, kind=kind, reason=reason, raw=raw, size_bytes=len(raw))
