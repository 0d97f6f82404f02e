"""Reads a streamed answer: server-sent events, or a whole answer of a server that streams none.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from pytest_lmstrix.engines.openai.messages import PrefillProgress, StreamEvent

_KEEP_ALIVE = re.compile(rb":\s*keep-?alive (\d{1,9})/(\d{1,9})\s*")
"""The comment in which mlx_lm's server reports the progress of a prefill, in tokens."""
_DONE = b"[DONE]"


class AnswerPart(Struct, frozen=True):
    """A part of an answer."""

    data: bytes = b""
    is_error: bool = False
    """Whether the server calls it an error, whatever it holds."""
    is_done: bool = False
    """Whether it says that the answer is complete."""
    prefill: PrefillProgress | None = None


def part_of(line: bytes) -> AnswerPart | None:
    """Return what a line of server-sent events holds; `None` for comments and other fields."""
    field, _, data = line.rstrip(b"\r").partition(b":")
    data = data.strip()
    if not field:
        found = _KEEP_ALIVE.fullmatch(line)
        done, total = map(int, found.groups()) if found else (0, 0)
        return AnswerPart(prefill=PrefillProgress(processed=done, total=total)) if found else None
    if field == b"error":
        return AnswerPart(data=data, is_error=True)
    if field != b"data" or not data:
        return None
    return AnswerPart(is_done=True) if data == _DONE else AnswerPart(data=data)


def parts_of(lines: Iterable[bytes], most_bytes: int) -> Iterator[AnswerPart]:
    """Yield the parts of an answer; what is not a stream of events is one part.

    Raises:
        OverflowError: Such an answer has more than `most_bytes`.
    """
    whole = bytearray()
    for line in lines:
        if whole or _is_whole(line):
            whole += line + b"\n"
            if len(whole) > most_bytes:
                raise OverflowError
        elif part := part_of(line):
            yield part
    if whole:
        yield AnswerPart(data=bytes(whole))


def _is_whole(line: bytes) -> bool:
    """Whether an answer of JSON or of HTML begins with `line`."""
    return line.lstrip().startswith((b"{", b"[", b"<"))


class Signs:
    """Tells which lines show that the model moves: text, the end, or a prefill that advances.

    Neither a ping that keeps the connection open nor a first event with nothing but a role, which
    several servers send before the prefill, does so.
    """

    def __init__(self) -> None:
        self._prefilled = -1

    def __call__(self, line: bytes) -> bool:
        part = part_of(line)
        if part is None:
            return _is_whole(line)
        prefill = part.prefill
        if prefill is None and not part.is_done:
            try:
                event = msgspec.json.decode(part.data, type=StreamEvent, strict=False)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return True  # an error, as its reader finds
            prefill = event.prompt_progress
            if prefill is None:
                return event.is_sign
        if prefill is None:
            return True
        advanced = prefill.processed > self._prefilled
        self._prefilled = max(self._prefilled, prefill.processed)
        return advanced
