"""Model output is sanitized: harmless, short and valid wherever it is displayed."""

from __future__ import annotations

import html
import io
import re
import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_lmstrix.core.sanitize import (
    LIMIT,
    clean,
    escape_html,
    escape_markdown,
    one_line,
    without_commands,
)
from pytest_lmstrix.core.types import Reply
from pytest_lmstrix.system.workflow_commands import GuardedFile

# Any text, with dangerous characters much more frequent than by chance.
DANGEROUS = [
    "\x00", "\x07", "\x08", "\x1b", "\x1b[", "\x1b[31m", "\x1b]", "\x1b]0;title\x07", "\x1bP",
    "\x1b\\", "\x9b", "\x9d", "\x9c", "\x90", "\r", "\r\n", "\n", "\t", "\x0b", "\x85", "\u2028",
    "\u202e", "\u2066", "\u200b", "\u200d", "\ufeff", "\U000e0041", "\U0001f469", "\ufe0f",
    "\u0301", "\u0301\u0302\u0303\u0304\u0305\u0306", "\ud83d", "\udc69", "|", "`", "<", "&",
    "http://x", "www.x.y", "[a](b)", "<b>", "\\",
]  # fmt: skip
HOSTILE = st.lists(
    st.text(st.characters(), max_size=20) | st.sampled_from(DANGEROUS), max_size=30
).map("".join)  # including lone surrogates
LIMITS = st.integers(0, 200)


@given(HOSTILE, LIMITS)
@example("a" * 50 + "\U0001f469\u200d\U0001f469" * 50, 60)
def test_no_dangerous_character_is_left(text: str, limit: int) -> None:
    result = clean(text, limit)
    result.encode()
    assert len(result) <= limit
    for character in result:
        category = unicodedata.category(character)
        assert category not in ("Cc", "Cs", "Zl", "Zp") or character in "\n\t", ascii(character)
        assert unicodedata.bidirectional(character) not in (
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
        )  # fmt: skip


@given(HOSTILE, LIMITS)
@example("0" * 21 + " 0", 22)
def test_cleaning_is_idempotent(text: str, limit: int) -> None:
    assert clean(clean(text, limit), limit) == clean(text, limit)
    assert one_line(one_line(text, limit), limit) == one_line(text, limit)


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=300))
def test_ordinary_text_is_unchanged(text: str) -> None:
    invisible = set("\u115f\u1160\u3164\uffa0\ufffc")
    assert clean(text) == "".join(each for each in text if each not in invisible)


@given(HOSTILE)
def test_one_line_has_no_line_breaks(text: str) -> None:
    assert one_line(text, 500).splitlines() in ([], [one_line(text, 500)])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("\x1b[1;31mred\x1b[0m \x9b4mline", "red line", id="colours"),
        pytest.param("\x1b]0;owned\x07ok", "ok", id="title"),
        pytest.param("\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "click", id="hyperlink"),
        pytest.param("\x1bP1$r0m\x1b\\ok", "ok", id="device-control"),
        pytest.param("\x1b]0;what follows", "0;what follows", id="unterminated"),
        pytest.param("\x1bcok\x1b(B", "ok", id="two-character-escapes"),
        pytest.param("a\r\nb\rc\u2028d", "a\nb\nc\nd", id="newlines"),
        pytest.param("abc\x08\x08\x08xyz\x00", "abcxyz", id="backspace-and-nul"),
        pytest.param("safe\u202etxt.exe", "safetxt.exe", id="bidi"),
        pytest.param("a\u200bb\u2060c\ufeffd\xade", "abcde", id="invisible"),
        pytest.param("hi\U000e0068\U000e0069", "hi", id="tags"),
        pytest.param("\U0001f469\u200d\U0001f467", "\U0001f469\u200d\U0001f467", id="emoji"),
        pytest.param("a\u200db", "ab", id="joiner-outside-emoji"),
        pytest.param("\ud83dx", "\ufffdx", id="surrogate"),
        pytest.param("z" + "\u0301" * 500, "z" + "\u0301" * 4, id="stacked-marks"),
    ],
)
def test_terminal_control_sequences_are_removed(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_omitted_characters_are_counted() -> None:
    shown = clean("x" * 22_345)
    kept, rest = re.fullmatch(r"(x+)\.\.\. \[([\d,]+) more characters\]", shown).groups()  # type: ignore[union-attr]
    assert len(shown) == LIMIT
    assert len(kept) + int(rest.replace(",", "")) == 22_345


@given(HOSTILE)
def test_escaped_html_displays_exactly_the_clean_text(text: str) -> None:
    escaped = escape_html(text)
    assert not set("<>\"'") & set(escaped)
    assert html.unescape(escaped) == clean(text)


@given(HOSTILE)
def test_markdown_markup_is_escaped(text: str) -> None:
    escaped = escape_markdown(text)
    assert "\n" not in escaped
    assert not set("<>") & set(escaped)
    unescaped = re.sub(r"\\([\\`*_\[\]|~$@:.])", "", escaped)
    assert not set("`*_[]|~$@\\") & set(unescaped)
    assert not re.search(r"(?<!\\)://", escaped)
    assert html.unescape(re.sub(r"\\([\\`*_\[\]|~$@:.])", r"\1", escaped)) == one_line(text)


@pytest.mark.parametrize(
    "part",
    ["\x1b]", "\x9d", "\x1b[", "\x9b1", "\u200d", "\U0001f469\u200d", "\u0301", "a\r", "\x00"],
)
@pytest.mark.parametrize("function", [clean, one_line, escape_html, escape_markdown])
def test_hostile_text_is_cleaned_in_linear_time(part: str, function: Callable[[str], str]) -> None:
    def seconds(length: int) -> float:
        text = part * (length // len(part))
        began = time.process_time()
        function(text)
        return time.process_time() - began

    # Quadratic time would take a hundred times as long for ten times the text.
    assert seconds(500_000) < 40 * seconds(50_000) + 0.5


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        pytest.param("\ud83d\ude00 42", "\U0001f600 42", id="split-surrogate-pair"),
        pytest.param("\ud83d 42\ude00", "\ufffd 42\ufffd", id="lone-surrogates"),
    ],
)
def test_a_reply_is_encodable(said: str, kept: str) -> None:
    assert Reply(text=said, reasoning=said) == Reply(text=kept, reasoning=kept)


@given(st.text())
def test_an_encodable_reply_is_unchanged(said: str) -> None:
    assert Reply(text=said).text == said


def commands(text: str) -> list[str]:
    """The workflow commands that a GitHub Actions runner finds in printed text."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = re.split(r"[\r\n]", plain)
    return [line for line in lines if line.lstrip().startswith("::") or "##[" in line]


@pytest.mark.parametrize(
    "text",
    ["::add-mask::x", "a\n  ::stop-commands::x\nb", "a ##[add-mask]x", "a\r::x::", "::::", "###[x]",
     "\x1b[31m::error::x"],
)  # fmt: skip
def test_workflow_commands_are_neutralized(text: str) -> None:
    assert commands(text)
    assert not commands(without_commands(text))


@given(st.lists(st.text("a :#[\n\r")))
def test_removing_characters_creates_no_workflow_command(pieces: list[str]) -> None:
    written = io.StringIO()
    file = GuardedFile(written)
    for piece in pieces:
        file.write(piece)
    assert not commands(written.getvalue())


@pytest.mark.parametrize("text", ["tests/a.py::test_b[m-1]", "a: b", "## heading", "[x]", "1::2"])
def test_other_text_is_not_treated_as_a_workflow_command(text: str) -> None:
    assert without_commands(text) == text
