"""The keys of models.yaml, and what each of them accepts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Protocol, get_args

import msgspec
from msgspec import Meta
from yaml.nodes import Node

from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH, KvCacheType, ModelType, Prompts
from pytest_lmstrix.manifest.nodes import is_list, plain, shown
from pytest_lmstrix.weights.source import SourceError, parse_source


class Wrong(Exception):
    """A value that a key does not accept: where it is, and what would be right."""

    def __init__(self, node: Node, text: str) -> None:
        super().__init__(f"{text}, got {shown(node)}")
        self.node = node


class Rule(Protocol):
    """What a key accepts."""

    def read(self, node: Node) -> Any:
        """The value of a node.

        Raises:
            Wrong: It is not accepted.
        """


class _Scalar:
    def __init__(self, type_: Any, expected: str, limits: str = "") -> None:
        self.type = type_
        self.expected = expected
        self.limits = limits
        """Said as well when the value is a number."""

    def read(self, node: Node) -> Any:
        value = plain(node)
        try:
            return msgspec.convert(value, self.type)
        except msgspec.ValidationError:
            text = f"must be {self.expected}"
            if isinstance(value, int | float) and not isinstance(value, bool):
                text += self.limits
            raise Wrong(node, text) from None


RESERVED_TAGS = frozenset({
    "skip", "skipif", "xfail", "parametrize", "usefixtures", "filterwarnings", "tryfirst",
    "trylast", "fast", "full", "deep", "limit", "lmstrix", "and", "or", "not", "None", "True",
    "False",
})  # fmt: skip
"""Markers of pytest and of the checks, and the words of marker expressions."""


class _Text(_Scalar):
    def __init__(self) -> None:
        super().__init__(str, "text", " (in quotes)")

    def read(self, node: Node) -> str:
        text: str = super().read(node)
        if not text.strip():
            raise Wrong(node, "must not be empty")
        if len(text) > 1000:
            raise Wrong(node, "must be no longer than 1,000 characters")
        if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text):
            raise Wrong(node, "must be one line without control characters")
        return text


class _Tag(_Text):
    def read(self, node: Node) -> str:
        tag = super().read(node)
        if not re.fullmatch(r"[^\W_][\w-]*", tag):
            raise Wrong(node, "must be a word of letters, digits, - and _, to be chosen by -m")
        if tag in RESERVED_TAGS:
            raise Wrong(node, "must be no marker with a meaning of its own")
        return tag


class _Source(_Text):
    def read(self, node: Node) -> str:
        text = super().read(node)
        try:
            parse_source(text)
        except SourceError as error:
            raise Wrong(node, str(error)) from None
        return text


class _Sha256(_Scalar):
    def __init__(self) -> None:
        digits = Annotated[str, Meta(pattern=r"\A[0-9A-Fa-f]{64}\Z")]
        super().__init__(digits, "64 hexadecimal digits")

    def read(self, node: Node) -> str:
        digits: str = super().read(node)
        return digits.lower()


class _Each:
    def __init__(self, item: Rule, expected: str) -> None:
        self.item = item
        self.expected = expected

    def read(self, node: Node) -> tuple[Any, ...] | None:
        if not is_list(node):
            raise Wrong(node, f"must be {self.expected}")
        return tuple(self.item.read(item) for item in node.value)


class _Contexts(_Each):
    def read(self, node: Node) -> tuple[int, ...] | None:
        if plain(node) == "ladder":
            return None
        sizes = super().read(node)
        if not sizes:
            raise Wrong(node, f"must be {self.expected}")
        seen = set()
        for size, item in zip(sizes, node.value, strict=True):
            if size in seen:
                raise Wrong(item, "must differ from each other")
            seen.add(size)
        return sizes


def _number(low: int, high: int, expected: str = "a whole number") -> _Scalar:
    return _Scalar(Annotated[int, Meta(ge=low, le=high)], expected, f" from {low:,} to {high:,}")


def _choice(literal: Any) -> _Scalar:
    return _Scalar(literal, "one of " + ", ".join(get_args(literal)))


_COUNT = 2**31 - 1

LOAD_KEYS: Mapping[str, Rule] = {
    "kv_cache_type": _choice(KvCacheType),
    "flash_attention": _Scalar(bool, "true or false"),
    "gpu_layers": _number(0, _COUNT),
    "gpu_offload": _Scalar(Annotated[float, Meta(ge=0, le=1)], "a number from 0 to 1"),
    "batch_size": _number(1, _COUNT),
    "threads": _number(1, _COUNT),
}
"""Those of `load`, which is a mapping of its own."""

DEFAULT_KEYS: Mapping[str, Rule | None] = {
    "engine": _Text(),
    "contexts": _Contexts(
        _number(1, MAX_CONTEXT_LENGTH, "whole numbers"), "ladder or a list of whole numbers"
    ),
    "load": None,
    "prompts": _choice(Prompts),
    "tags": _Each(_Tag(), "a list of words"),
}

MODEL_KEYS: Mapping[str, Rule | None] = {
    "id": _Text(),
    **DEFAULT_KEYS,
    "context_limit": _number(1, MAX_CONTEXT_LENGTH),
    "size_bytes": _number(0, 2**63 - 1),
    "source": _Source(),
    "sha256": _Sha256(),
    "type": _choice(ModelType),
    "architecture": _Text(),
    "quantization": _Text(),
    "capabilities": _Each(_Text(), "a list of texts"),
}
