"""Checks the arguments of requests in users' own tests."""

from __future__ import annotations


def check_request(text: object, max_tokens: object, temperature: object) -> None:
    """Raises:
    TypeError: A mistake of the caller, which must not be found by the engine.
    """
    if not isinstance(text, str):
        raise TypeError(f"a prompt must be a str, got {text!r}")
    if not isinstance(max_tokens, int):
        raise TypeError(f"max_tokens must be an int, got {max_tokens!r}")
    if not isinstance(temperature, int | float):
        raise TypeError(f"temperature must be a number, got {temperature!r}")
