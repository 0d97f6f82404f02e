"""A small deterministic language model: it tokenizes, and answers like a competent model.

It is independent of the probes. An unfinished sentence continues as the same beginning did
earlier in the visible text (as an induction head does), or as that of another owner to which a
sentence such as "Emma has the code word of Oslo." refers; sums and number words are computed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from zlib import crc32

_TOKEN = re.compile(r" ?\w{1,12}| ?[^\w\s]|\s")
_SENTENCE_END = re.compile(r"[.!?]['\")]?\s+|\n")
_SUM = re.compile(r"(\d+)\s*\+\s*(\d+)(?!.*\d)", re.DOTALL)
# fmt: off
_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
]
# fmt: on
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_NUMBERS = {word: n for n, word in enumerate(_UNITS)}
_NUMBERS |= {word: 10 * n for n, word in enumerate(_TENS, 2)}
_NUMBER_WORD = re.compile(
    rf"\b({'|'.join(_TENS)})[- ]({'|'.join(_UNITS[1:10])})\b|\b({'|'.join(_NUMBERS)})\b"
)
_QUESTION = re.compile(r"\b(?:what|who|where|which) (is|are|was|were) ([^?]{3,})\?$")
_OF = re.compile(r"(.+ of )(\w+)( is)")
_LONGEST_ECHO = 400
FALLBACK = " It was a quiet day, and nobody in the village spoke of it again."


@lru_cache(maxsize=4)
def tokenize(text: str) -> tuple[str, ...]:
    """Return the tokens of `text`, which join to `text`.

    A token is up to twelve letters or digits or one sign, each with the one space before it, or
    one white-space character.
    """
    return tuple(_TOKEN.findall(text))


def count_tokens(text: str) -> int:
    """Return the number of tokens of `text`."""
    return len(tokenize(text))


def shared_prefix(tokens: Sequence[str], others: Sequence[str]) -> int:
    """Return the number of tokens in the common prefix."""
    pairs = enumerate(zip(tokens, others, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(tokens), len(others)))


def token_id(token: str) -> int:
    """Return a number for `token`."""
    return crc32(token.encode("utf-8", "surrogatepass")) % 50_000


def embed(tokens: Sequence[str], dimension: int) -> list[float]:
    """Return the mean of a random vector of each word, of length 1: texts of like words are near.

    Every token counts, whatever its place.
    """
    total = [0.0] * dimension
    for word, times in Counter(token.strip().lower() for token in tokens).items():
        total = [
            so_far + times * value
            for so_far, value in zip(total, _direction(word, dimension), strict=True)
        ]
    length = math.hypot(*total) or 1.0
    return [value / length for value in total]


@lru_cache(maxsize=4096)
def _direction(word: str, dimension: int) -> tuple[float, ...]:
    rng = Random(word)
    return tuple(rng.gauss(0, 1) for _ in range(dimension))


def answer(text: str) -> str:
    """Return the continuation of `text` up to the end of its sentence."""
    text = text.rstrip("… \n")
    lowered = text.lower()
    if len(lowered) != len(text):  # some capitals have a longer lower case
        return FALLBACK
    stem = _SENTENCE_END.split(lowered[-2 * _LONGEST_ECHO :])[-1].lstrip()
    before = lowered[: len(lowered) - len(stem)]
    if " " in stem and (found := _continuation(text, before, stem)):
        return found
    if reference := linked(lowered):
        return _continuation(text, before, reference)
    return _computed(lowered) or _greeting(stem) or _recalled(text, before, stem) or FALLBACK


def _continuation(text: str, before: str, phrase: str) -> str:
    """Return what followed the last `phrase` in `before`, up to the end of the sentence."""
    at = before.rfind(phrase)
    if at < 0:
        return ""
    rest = text[at + len(phrase) : at + len(phrase) + _LONGEST_ECHO]
    end = re.search(r"[.!?](?=\s|$)|\n", rest)
    return rest[: end.end()] if end else rest


def linked(text: str) -> str:
    """Return the beginning of the sentence that the last one refers to, if there is such a link."""
    *_, last = text.lower().rsplit("\n", 1)
    if (asked := _OF.fullmatch(last)) is None:
        return ""
    kind, owner, verb = asked.groups()
    links = re.findall(rf"\b{re.escape(owner)} has {re.escape(kind)}(\w+)\.", text.lower())
    return f"{kind}{links[-1]}{verb}" if links else ""


def rival(text: str) -> str:
    """Return how a sentence about another owner ends that begins like the last one."""
    *_, last = text.rsplit("\n", 1)
    if (asked := _OF.fullmatch(last)) is None:
        return ""
    kind, owner, verb = map(re.escape, asked.groups())
    others = re.findall(rf"{kind}(?!{owner}\b)\w+{verb}([^.\n]+\.)", text)
    mine = re.findall(rf"{kind}{owner}{verb}([^.\n]+\.)", text)
    return next((other for other in reversed(others) if other not in mine), "")


def _computed(lowered: str) -> str:
    tail = "\n".join(lowered[-_LONGEST_ECHO:].splitlines()[-2:])
    if match := _SUM.search(tail):
        return f"{int(match[1]) + int(match[2])}"
    words = list(_NUMBER_WORD.finditer(tail))
    if not words or any(c.isdigit() for c in tail[words[-1].end() :]):
        return ""
    ten, unit, alone = words[-1].groups()
    return str(_NUMBERS[alone] if alone else _NUMBERS[ten] + _NUMBERS[unit])


def _greeting(stem: str) -> str:
    return "Hello!" if re.search(r"\bsay\b.*\bhello\b", stem) else ""


def _recalled(text: str, before: str, stem: str) -> str:
    """Return the continuation of the longest suffix of `stem` found earlier."""
    if question := _QUESTION.search(stem):
        stem = f"{question[2]} {question[1]}"
    words = stem.rstrip(".:'\"?").split(" ")
    for first in range(len(words) - 1):
        if found := _continuation(text, before, " ".join(words[first:])):
            return found
    return ""
