"""API keys: read from the environment, and kept out of every text."""

from __future__ import annotations

import os

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict

HIDDEN = "[API key]"
_LEAST_CHARACTERS = 4
"""Shorter values are placeholders, which may be part of any text."""


class ApiKey:
    """The API key in the environment variable `variable`; `None` for a server without one."""

    __slots__ = ("_value", "variable")

    def __init__(self, variable: str | None) -> None:
        """Raises:
        Failure: The variable is not set, or holds no valid key.
        """
        self.variable = variable
        self._value = os.environ.get(variable, "").strip() if variable else ""
        if variable and not self._value:
            raise refusal_of_server(
                f"the environment variable {variable}, which api_key_env names, is empty"
            )
        if not (self._value.isascii() and self._value.isprintable()):
            raise refusal_of_server(
                f"the environment variable {variable} does not hold a valid API key"
            )

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def redact(self, text: str) -> str:
        """Return `text` without the key."""
        if len(self._value) < _LEAST_CHARACTERS:
            return text
        return text.replace(self._value, HIDDEN)


def refusal_of_server(text: str) -> Failure:
    """Return the failure of a server that cannot be used until the user changes something."""
    return Failure(text, verdict=Verdict.UNREACHABLE, phase="connect", final=True)
