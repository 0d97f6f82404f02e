"""What an engine can do: found by the arguments that it takes, and by its refusals."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Container, Iterable
from contextlib import AbstractContextManager

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Phase
from pytest_lmstrix.engines.request import Unable

TOOL_RESULTS = "tool results"
"""What a request needs whose history has them."""
_REFUSED = re.compile(
    r"not (?:yet )?support|n't support|unsupported|not a multimodal|--jinja|mmproj"
    r"|enable-auto-tool-choice|unrecognized|unexpected keyword|not implemented"
    r"|(?:unknown|unexpected|invalid) (?:message )?role|roles? (?:must|should) alternate",
    re.IGNORECASE,
)
_ABOUT = {
    "tools": re.compile(r"\btools?\b|function.call|--jinja|auto-tool-choice", re.IGNORECASE),
    "images": re.compile(r"\bimages?\b|image_url|vision|multimodal|mmproj", re.IGNORECASE),
    "schema": re.compile(
        r"schema|grammar|response_format|structured output|\bformat\b", re.IGNORECASE
    ),
    "embeddings": re.compile(r"\bembed", re.IGNORECASE),
    "thinking": re.compile(r"think|chat_template_kwargs|reasoning", re.IGNORECASE),
    "seed": re.compile(r"\bseed\b", re.IGNORECASE),
    "stop": re.compile(r"\bstop\b", re.IGNORECASE),
    TOOL_RESULTS: re.compile(r"\brole|\btools?\b", re.IGNORECASE),
}


def missing_arguments(method: Callable[..., object], names: Iterable[str]) -> list[str]:
    """Return those of the arguments `names` that a method of an engine does not take."""
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return []
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return []
    return [name for name in names if name not in parameters]


class Refusals(AbstractContextManager[None]):
    """Raises `Unable` for a failure that refuses one of the `options` of a request."""

    def __init__(self, options: Container[str]) -> None:
        self._options = options

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, Failure) or not _REFUSED.search(error.text):
            return
        for option, about in _ABOUT.items():
            if option in self._options and about.search(error.text):
                raise Unable(error.text, option=option) from error


class EngineErrors(AbstractContextManager[None]):
    """Turns any exception of an engine into a `Failure` of the phase."""

    def __init__(self, phase: Phase) -> None:
        self._phase = phase

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        # SystemExit: libraries that mean to end a program must not end a run.
        if isinstance(error, Exception | SystemExit) and not isinstance(error, Failure | Unable):
            raise Failure.from_engine(
                f"{type(error).__name__}: {error}", phase=self._phase
            ) from error
