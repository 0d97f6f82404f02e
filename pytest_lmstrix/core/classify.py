"""Classifies engine errors by text, code and exit status into verdicts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pytest_lmstrix.core.error_patterns import lines, rules
from pytest_lmstrix.core.sanitize import clean
from pytest_lmstrix.core.verdicts import Phase, Verdict


def classify(
    text: str,
    *,
    phase: Phase | None = None,
    code: str | None = None,
    exit_status: int | None = None,
) -> Verdict:
    """Return the verdict on an engine's problem.

    A structured code decides before the text, which it may also be found in; the text before the
    exit status of the engine's process; both before vague hints in the text. Lines about a chat
    template decide nothing but `template_error`. `exit_status` is as `subprocess` gives it
    (negative: a POSIX signal), as a shell or as Windows does. Never raises.
    """
    words, template_error = _without_template(_words(f"{code or ''}\n{text}"))
    verdict = (
        _of_code(words)
        or _first_match(rules.RULES, words)
        or template_error
        or _of_exit_status(exit_status, phase)
        or _first_match(rules.HINTS, words)
        or Verdict.ENGINE_ERROR
    )
    # Before there is a connection, no model can be at fault.
    if phase == "connect":
        return Verdict.UNREACHABLE
    # The engine was found before, and has gone since.
    if phase == "predict" and verdict is Verdict.MODEL_NOT_FOUND:
        return Verdict.CRASHED
    return verdict


_FLAGS = re.IGNORECASE | re.MULTILINE
_HEAD, _TAIL = 16_000, 64_000
_NO_MEMORY = (0xC0000017, 0xC000012D)
_WINDOWS_ERROR = 0xC0000000
_SHELL_SIGNALS = range(128 + 1, 128 + 65)
_CODE = re.compile(rf"\b(?:{'|'.join(map(re.escape, rules.CODES))})\b", re.IGNORECASE)
_CODES = {code.lower(): Verdict(verdict) for code, verdict in rules.CODES.items()}


def _words(text: str) -> str:
    """Return `text` without escapes and noise; of a very long one, start and end."""
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    # A log quoted in JSON: its escaped newlines would hide where lines and words begin.
    text = re.sub(r"\\[nrt]", "\n", clean(text, len(text)))
    for noise in lines.NOISE:
        text = re.sub(noise, "", text, flags=_FLAGS)
    return text


_TEMPLATE = re.compile(lines.TEMPLATE, _FLAGS)
_TEMPLATE_WARNING = re.compile(lines.TEMPLATE_WARNING, _FLAGS)


def _without_template(words: str) -> tuple[str, Verdict | None]:
    """Take out the lines about the chat template; `template_error` if one of them is an error."""
    found = _TEMPLATE.findall(words)
    is_error = any(not _TEMPLATE_WARNING.search(line) for line in found)
    return _TEMPLATE.sub("", words), Verdict.TEMPLATE_ERROR if is_error else None


def _of_code(words: str) -> Verdict | None:
    found = _CODE.search(words)
    return _CODES[found.group().lower()] if found else None


def _first_match(patterns: Iterable[tuple[str, str]], words: str) -> Verdict | None:
    for verdict, pattern in patterns:
        if re.search(pattern, words, _FLAGS):
            return Verdict(verdict)
    return None


def _of_exit_status(status: int | None, phase: Phase | None) -> Verdict | None:
    """Return the cause of a process exit; `None` after a normal exit, or if unknown.

    Source: Microsoft's list of NTSTATUS values (0xC0000017 STATUS_NO_MEMORY, 0xC000012D
    STATUS_COMMITMENT_LIMIT), signed or not, of 32 or 64 bits; POSIX signals, 128 + n in a shell.
    """
    if status is None:
        return None
    # Rounded to a JavaScript number, a 64-bit value keeps only its high bits.
    if status & 0xFFFFFFFF in _NO_MEMORY:
        return Verdict.OUT_OF_MEMORY
    if status < 0 or status >= _WINDOWS_ERROR or status in _SHELL_SIGNALS:
        return Verdict.CRASHED
    return Verdict.CRASHED if phase == "predict" else None
