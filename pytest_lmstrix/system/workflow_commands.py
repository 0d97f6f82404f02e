"""Neutralizes workflow commands on GitHub Actions, where a printed line can be one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytest_lmstrix.core.sanitize import without_commands


class GuardedFile:
    """A text file that neutralizes workflow commands in written lines."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._line = ""
        """Current incomplete line."""

    def write(self, text: str) -> int:
        safe = without_commands(text, after=self._line)
        self._line = (self._line + safe).replace("\r", "\n").rpartition("\n")[2][-200:]
        self._file.write(safe)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def guarded(file: Any) -> Any:
    """Return `file`, on GitHub Actions as a `GuardedFile`."""
    if not os.environ.get("GITHUB_ACTIONS") or isinstance(file, GuardedFile):
        return file
    return GuardedFile(file)


@contextmanager
def commands_removed(*kinds: type[Exception]) -> Iterator[None]:
    """On GitHub Actions, neutralize workflow commands in the messages of errors of `kinds`."""
    try:
        yield
    except kinds as error:
        if os.environ.get("GITHUB_ACTIONS"):
            error.args = tuple(
                without_commands(arg, after="ERROR: ") if isinstance(arg, str) else arg
                for arg in error.args
            )
        raise
