"""Parses replies: separates reasoning from the answer, detects silence, finds whole numbers."""

from __future__ import annotations

import re
import unicodedata

from pytest_lmstrix.core.types import Reply

_THOUGHT = r"(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|seed:think)"
_OPEN = (
    rf"[<\[]{_THOUGHT}[>\]]|◁think▷"
    r"|<\|(?:begin_of_thought|START_THINKING)\|>"
    r"|<\|channel\|?>(?:analysis|commentary|thought)(?:<\|message\|>)?"
)
_CLOSE = (
    rf"[<\[]/{_THOUGHT}[>\]]|◁/think▷"
    r"|<\|(?:end_of_thought|END_THINKING)\|>|<\|end\|>|<channel\|>"
)
_REASONING = re.compile(rf"(?:{_OPEN}).*?(?:{_CLOSE}|\Z)", re.DOTALL | re.IGNORECASE)
_UNOPENED = re.compile(rf"\A.*(?:{_CLOSE})", re.DOTALL | re.IGNORECASE)
_MARKER = re.compile(r"<\|start\|>\w*|<\|[^<>|]*\|>(?:final<\|message\|>)?")

# Signs, points and Latin letters that touch a number belong to it: -5, .5, 3.5, 1,096, x5, 5th.
# Other letters do not: scripts without spaces write them next to it.
_TOUCHING = r"[-+.,A-Za-z\u2212\u2013]"  # with the minus sign and the dash used for it
_NUMBER = re.compile(rf"(?<!{_TOUCHING}){_TOUCHING}*\d[\dA-Za-z]*(?:[.,':/\u2019\u2044]\d+)*")
_WHOLE = re.compile(r"\+?0*(\d{1,18})(?:\.0+)?")
# In short pieces, since sorting a run of combining marks takes quadratic time; with the letter
# before, which the marks belong to.
_TO_NORMALIZE = re.compile(r"[A-Za-z]?[^\x00-\x7f]{1,8}")
_SILENT_CATEGORIES = ("C", "Z")
_MIN_REPETITIONS = 4


def without_reasoning(text: str) -> str:
    """Return `text` without the reasoning, which is found by the tags that models use.

    Reasoning without a closing tag extends to the end. Text before a closing tag without an
    opening one is reasoning too, since some chat templates write the opening tag themselves.
    """
    return _MARKER.sub("", _UNOPENED.sub("", _REASONING.sub("", text)))


def is_silence(text: str) -> bool:
    """Return whether `text` has only white space, control and other invisible characters."""
    return all(unicodedata.category(character)[0] in _SILENT_CATEGORIES for character in text)


def repeated_token(reply: Reply) -> str | None:
    """Return the one token that a reply repeats throughout, as weights of NaN do; else `None`."""
    said = reply.text or reply.reasoning
    for text in (said, f" {said}"):
        unit = text[: (text + text).find(text, 1)]
        count = len(text) // len(unit) if unit else 0
        # A repeated phrase has more tokens than repetitions; the end may count as a token too.
        if count >= max(_MIN_REPETITIONS, (reply.completion_tokens or 0) - 1):
            return unit
    return None


def whole_numbers(text: str) -> list[int | None]:
    """Return the numbers in `text` in order, `None` for each that is not whole and positive.

    `96.`, `096` and `96.0` are 96; `-96`, `9.6`, `1,096`, `96th` and `²96` are not. Digits of
    other scripts count as digits.
    """
    plain = _TO_NORMALIZE.sub(lambda piece: unicodedata.normalize("NFKC", piece[0]), text)
    found = _NUMBER.findall(plain)
    return [int(whole[1]) if (whole := _WHOLE.fullmatch(number)) else None for number in found]
