"""What an exporter of a program consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from pytest_lmstrix.export.entries import Exported, NotExported


class Merged(Struct, frozen=True):
    """A text with the settings, and the models that have none in it."""

    text: str
    left_out: tuple[NotExported, ...] = ()


class App(NamedTuple):
    """A program that settings are exported to."""

    place: str
    """Where its settings usually are, for people."""
    render: Callable[[Sequence[Exported]], Merged]
    """Return the settings alone, to print."""
    merge: Callable[[str, Sequence[Exported]], Merged] | None = None
    """Return the text of a file with the settings; `None`: no file can be merged into safely."""
    bom: bool = True
    """Whether it reads files that begin with a byte order mark."""
    file_of: Callable[[Path, Exported], Path | None] | None = None
    """The file of each model in a folder, where each has one of its own."""
    variants: bool = False
    """Whether it tells variants of a model apart."""
    check_loads: bool = False
    """Whether a load shows if the setting is obeyed, which the program does not promise."""


def advice(
    place: str, text: str, merge: Callable[[str, Sequence[Exported]], Merged] | None = None
) -> App:
    """Return a program for which advice is printed; `{n}` in it is the context length."""

    def render(entries: Sequence[Exported]) -> Merged:
        lines = (
            f"{entry.name}: {text.format(n=entry.context_length)} ({entry.note})\n"
            for entry in entries
        )
        return Merged("".join(lines))

    return App(place, render, merge)
