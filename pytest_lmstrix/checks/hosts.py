"""Detects a host in trouble: the same words from several models in a row. Pure."""

from __future__ import annotations

import re

from msgspec import Struct
from msgspec.structs import replace

from pytest_lmstrix.core.types import Result
from pytest_lmstrix.core.verdicts import Verdict

MODELS_IN_A_ROW = 3
"""So many models that fail with the same words, and nothing that works between them."""
MAY_BE_SHARED = (Verdict.HOST_TROUBLE, Verdict.ENGINE_ERROR, Verdict.CRASHED, Verdict.TIMEOUT)
"""Verdicts that may be the host's: memory, context and files differ from model to model."""

_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/][^\s'\",;:()]*[\\/][^\s'\",;:()]*")
_NUMBER = re.compile(r"\b(?:0x[0-9a-f]+|[0-9a-f]{8,}|\d[\d.,:]*)", re.IGNORECASE)
# A name that a program made up: hexadecimal parts, or many digits and letters of both cases; but
# not the class of a model, such as Qwen3MoeForCausalLM.
_MADE_UP = re.compile(
    r"\b[0-9a-fA-F]{4,}(?:-[0-9a-fA-F]{4,}){2,}\b"
    r"|(?<![\w/+])(?=[\w/+]{0,40}\d)(?=[\w/+]{0,40}[a-z])(?=[\w/+]{0,40}[A-Z])"
    r"(?!\w{0,40}For[A-Z])[\w/+]{16,}=*"
)


def same_words(text: str, model: str) -> str:
    """Return an engine's words about `model` without what differs from load to load."""
    text = _PATH.sub("PATH", re.sub(_name(model), "MODEL", text))
    text = _MADE_UP.sub("#", text)
    return " ".join(_NUMBER.sub("#", text).lower().split())


def _name(model: str) -> str:
    """Match `model` and its part after the publisher, as whole words."""
    names = (re.escape(name) for name in (model, model.rpartition("/")[2]) if name)
    return rf"(?<!\w)(?:{'|'.join(names)})(?!\w)"


class _Row(Struct):
    words: str
    results: list[Result]


class HostRows:
    """The newest results of each host that failed with the same words."""

    def __init__(self) -> None:
        self._rows: dict[str | None, _Row] = {}
        self._withdrawn: list[Result] = []

    def add(self, result: Result, *, worked: bool) -> Result:
        """Return the next result, as `host_trouble` if it completes a row.

        `worked` is whether the model answered anything at all.
        """
        host, verdict = result.host, result.verdict
        if worked or (verdict.subject == "size" and verdict not in MAY_BE_SHARED):
            self._rows.pop(host, None)
            return result
        words = same_words(result.detail, result.model) if verdict in MAY_BE_SHARED else ""
        if not words:
            return result
        row = self._rows.get(host)
        if row is None or row.words != words:
            row = self._rows[host] = _Row(words, [])
        models = list(dict.fromkeys([*(each.model for each in row.results), result.model]))
        if len(models) < MODELS_IN_A_ROW:
            row.results.append(result)
            return result
        detail = (
            f"{result.detail}\nThe same words from {len(models)} models in a row"
            f" ({', '.join(models)}): nothing counts against them"
        )
        self._withdrawn += [_of_host(each, detail) for each in row.results]
        del self._rows[host]
        return _of_host(result, detail)

    def take_withdrawn(self) -> list[Result]:
        """Return, once, the results that replace those of the models before in a complete row."""
        withdrawn, self._withdrawn = self._withdrawn, []
        return withdrawn


def _of_host(result: Result, detail: str) -> Result:
    trouble = Verdict.HOST_TROUBLE
    return replace(result, verdict=trouble, outcome=trouble.outcome, detail=detail)
