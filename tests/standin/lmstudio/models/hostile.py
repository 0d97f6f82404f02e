"""Hostile model output that may harm programs that display or store it."""

from __future__ import annotations

HTML = "</td></script><script>alert('96')</script><img src=x onerror=alert(5)>"
ANSI = "\x1b[2J\x1b[1;31mred\x1b]0;title\x07\x1b[0m"
CONTROLS = "a\x00b\x07c\x08d\x7fe\x9bf\r"
BIDI = "\u202egnp.exe\u202c \u2066isolated\u2069 \u200b\ufeff"
SURROGATES = "\ud800 high, \udfff low"
MARKDOWN = "| a | b |\n|---|---|\n```\n# heading\n[link](javascript:alert(1))\n::error::owned"
MARKS = "\u0301\u0323" * 30_000
"""Combining marks without a base, whose sorting takes quadratic time."""
HUGE_LINE = "lorem " * 1_750_000
"""One line of more than 10 MB."""

TEXTS = {
    "html": HTML,
    "ansi": ANSI,
    "controls": CONTROLS,
    "bidi": BIDI,
    "surrogates": SURROGATES,
    "markdown": MARKDOWN,
    "marks": MARKS,
}
