"""Sanitizes and shortens untrusted text of models and engines before any output."""

from __future__ import annotations

import html
import re

LIMIT = 10_000
"""Default length limit, in characters."""

# Introducers are excluded from the payload, so that a run of unterminated ones costs linear time;
# an unterminated one loses only its introducer, and so cannot hide the text after it.
_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])"  # OSC, DCS, SOS, PM, APC: titles, links
    r"[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
_NEWLINE = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control and invisible characters: bidi controls, joiners, fillers, tags, selectors.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0"
    r"\ufff0-\ufffb\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_EMOJI = "\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_LONE_JOINER = re.compile(f"\u200d(?:(?<![{_EMOJI}\ufe0f]\u200d)|(?![{_EMOJI}]))")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MARK = r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_STACKED_MARKS = re.compile(f"({_MARK}{{4}}){_MARK}+")
# The runner trims a line, and its comparison ignores zero-width characters.
_ZERO_WIDTH = (
    r"\x1b\[[0-9;]*m"
    r"|[\x00-\x08\x0e-\x1b\x7f\xad\u180e\u200b-\u200f\u2060-\u2064\ufeff]"
)
_SKIPPED = rf"(?:{_ZERO_WIDTH})*"
_BLANK = rf"(?:{_ZERO_WIDTH}|[^\S\r\n])*"
_V2_COMMAND = re.compile(rf"((?:^|(?<=[\r\n])){_BLANK}):(?={_SKIPPED}:)")
_V1_COMMAND = re.compile(rf"#({_SKIPPED}#)(?={_SKIPPED}\[)")
_MARKDOWN = re.compile(r"[\\`*_\[\]|~$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def clean(text: str, limit: int = LIMIT) -> str:
    """Return `text` without terminal escapes, control and invisible characters, shortened.

    Newlines, tabs and joiners inside emoji are kept. Lone surrogates become U+FFFD, so that the
    result is always valid UTF-8. A shortened text ends with `... [12,345 more characters]`.
    """
    return _cut(_scrub(text), limit)


def one_line(text: str, limit: int = 200) -> str:
    """Return `clean` text with every run of white space as one space."""
    return _cut(" ".join(_scrub(text).split()), limit).rstrip(" ")


def well_formed(text: str) -> str:
    """Return valid Unicode: surrogate halves are joined, or replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def without_commands(text: str, after: str = "") -> str:
    """Return `text` without workflow commands of GitHub Actions: leading `::name::`, `##[name]`.

    `after` is the part of the first line that is already printed.
    """
    safe = _V1_COMMAND.sub(r"# \1", _V2_COMMAND.sub(r"\1: ", text))
    if not after:
        return safe
    begun = _V2_COMMAND.match(after + text) or _V1_COMMAND.search(after[-20:] + text[:20])
    if begun:
        return f" {safe}"
    return safe


def escape_html(text: str, limit: int = LIMIT) -> str:
    """Return `clean` text, safe as content or quoted attribute of an HTML element."""
    return html.escape(clean(text, limit))


def escape_markdown(text: str, limit: int = 200) -> str:
    """Return `one_line` text for a cell of a Markdown table, without markup, HTML or links."""
    return _MARKDOWN.sub(r"\\\g<0>", html.escape(one_line(text, limit), quote=False))


def _scrub(text: str) -> str:
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    text = _NEWLINE.sub("\n", _ESCAPE_SEQUENCE.sub("", text))
    text = _SURROGATE.sub("\ufffd", _INVISIBLE.sub("", text))
    return _STACKED_MARKS.sub(r"\1", _LONE_JOINER.sub("", text))


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    # The note counts towards the limit, so that cutting again changes nothing.
    kept = limit - len(f"... [{len(text):,} more characters]")
    if kept <= 0:
        return text[:limit].rstrip("\u200d")
    head = text[:kept].rstrip("\u200d")
    return f"{head}... [{len(text) - len(head):,} more characters]"
