"""The keys of models.yaml and the rule of each."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace
from yaml.nodes import Node

from pytest_lmstrix.core.sanitize import clean
from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH, KvCacheType, ModelType, Prompts
from pytest_lmstrix.manifest.nodes import describe, is_list, plain
from pytest_lmstrix.system.addresses import server_url
from pytest_lmstrix.weights.source import parse_source


class Wrong(Exception):
    """An invalid value: its node, and the expected value; a `private` value is not shown."""

    def __init__(self, node: Node, text: str, *, private: bool = False) -> None:
        super().__init__(text if private else f"{text}, got {describe(node)}")
        self.node = node


RESERVED_TAGS = frozenset({
    "skip", "skipif", "xfail", "parametrize", "usefixtures", "filterwarnings", "tryfirst",
    "trylast", "fast", "full", "deep", "limit", "speed", "capability", "lmstrix", "and", "or",
    "not", "None", "True", "False",
})  # fmt: skip
"""Markers of pytest and of the checks, and the words of marker expressions."""


class Rule(Struct, frozen=True, kw_only=True):
    """The valid values of a key: scalars or, with `item`, lists."""

    expected: str
    type: Any = str
    """The msgspec type of a scalar."""
    number_hint: str = ""
    """Follows `expected` in the error when the value is a number."""
    convert: Callable[[Any], Any] | None = None
    """Returns the scalar to keep, or raises `ValueError` with the requirement."""
    private: bool = False
    """A value that is not valid may be a secret."""
    item: Rule | None = None
    """The rule of a list's items."""
    unique: bool = False
    """The list must not be empty, nor hold an item twice."""
    or_list: bool = False
    """A list of different scalars is valid too."""
    instead: str | None = None
    """A word that may stand in place of the list, read as `None`."""

    def read(self, node: Node) -> Any:
        """Return the value of a node.

        Raises:
            Wrong: The value is not valid.
        """
        if self.item is None:
            if self.or_list and is_list(node):
                return replace(self, unique=True)._list(node, replace(self, or_list=False))
            return self._scalar(node)
        if self.instead is not None and plain(node) == self.instead:
            return None
        return self._list(node, self.item)

    def _scalar(self, node: Node) -> Any:
        value = plain(node)
        try:
            value = msgspec.convert(value, self.type)
        except msgspec.ValidationError:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            unquoted = is_number or (self.type is str and isinstance(value, bool))
            hint = self.number_hint if unquoted else ""
            raise Wrong(node, f"must be {self.expected}{hint}") from None
        try:
            return value if self.convert is None else self.convert(value)
        except ValueError as error:
            raise Wrong(node, str(error), private=self.private) from None

    def _list(self, node: Node, item: Rule) -> tuple[Any, ...]:
        if not is_list(node) or (self.unique and not node.value):
            raise Wrong(node, f"must be {self.expected}")
        values = tuple(item.read(each) for each in node.value)
        if self.unique:
            seen = set()
            for value, each in zip(values, node.value, strict=True):
                if value in seen:
                    raise Wrong(each, "must differ from each other")
                seen.add(value)
        return values


def _line(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    if len(text) > 1000:
        raise ValueError("must be no longer than 1,000 characters")
    unusual = "" if text.isprintable() else text
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in unusual):
        raise ValueError("must be one line without control characters")
    return text


def _name(text: str) -> str:
    name = _line(text)
    if clean(name) != name:  # which also drops what reorders or hides the text around it
        raise ValueError("must be one line without control or invisible characters")
    return name


def _tag(text: str) -> str:
    tag = _line(text)
    if not re.fullmatch(r"[^\W_][\w-]*", tag):
        raise ValueError("must be a word of letters, digits, - and _, so that -m can select it")
    if tag in RESERVED_TAGS:
        raise ValueError("must be a word that neither pytest nor this plugin reserves")
    return tag


def _host_word(text: str) -> str:
    if not re.fullmatch(r"[^\W_][\w.-]*", _name(text)):
        raise ValueError("must be a word of letters, digits, -, _ and .")
    return text


def _host_name(text: str) -> str:
    if not re.match(r"[^\W\d]", _host_word(text)):  # else it might be an address
        raise ValueError("must begin with a letter")
    if text.lower() in ("local", "localhost"):
        raise ValueError("must differ from those of this machine, local and localhost")
    return text


_UNITS = {"B": 1, **{f"{letter}{unit}": base ** power
                     for unit, base in (("B", 1000), ("iB", 1024))
                     for power, letter in enumerate("KMGT", start=1)}}  # fmt: skip
_MEMORY = "a number of bytes, or a size such as 64GiB"
_LEAST_MEMORY = 1_000_000
"""Fewer bytes are a number whose unit is missing."""


def _bytes(value: int | str) -> int:
    if isinstance(value, str):
        found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,3})?) ?([KMGT]?i?B)", value)
        unit = _UNITS.get(found[2]) if found is not None else None
        value = int(float(found[1]) * unit) if found is not None and unit is not None else 0
    if not _LEAST_MEMORY <= value < 2**63:
        raise ValueError(f"must be {_MEMORY}")
    return value


def _source(text: str) -> str:
    parse_source(_line(text))
    return text


def _url(text: str) -> str:
    server_url(_line(text))
    return text


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", text):
        raise ValueError("must be the name of an environment variable, not the key itself")
    return text


OWN_ARGUMENTS = frozenset({
    "-m", "--model", "-mu", "--model-url", "-dr", "--docker-repo", "-hf", "-hfr", "--hf-repo",
    "-hff", "--hf-file", "-c", "--ctx-size", "-np", "--parallel", "--host", "--port",
    "--reuse-port", "--api-key", "--api-key-file", "--api-prefix", "--ssl-key-file",
    "--ssl-cert-file", "-fit", "--fit", "-fitt", "--fit-target", "-fitc", "--fit-ctx",
    "--context-shift", "--no-context-shift", "--sse-ping-interval", "--models-dir",
    "--models-preset", "--models-max", "--models-autoload", "--no-models-autoload", "--log-disable",
    "--log-file", "--embedding", "--embeddings", "--rerank", "--reranking", "--sleep-idle-seconds",
    "--no-cache-prompt", "-h", "--help", "--usage", "--version", "--list-devices", "-cl",
    "--cache-list", "--completion-bash",
})  # fmt: skip
"""Arguments of `llama-server` that this plugin sets itself, or that would defeat its tests."""


def _argument(text: str) -> str:
    flag = _line(text).partition("=")[0]
    if flag in OWN_ARGUMENTS:
        raise ValueError(f"must not hold {flag}, which the plugin sets itself")
    return text


def _text(convert: Callable[[str], str] = _name) -> Rule:
    return Rule(expected="text", number_hint=" (in quotes)", convert=convert)


def _number(low: int, high: int, expected: str = "a whole number") -> Rule:
    type_ = Annotated[int, Meta(ge=low, le=high)]
    return Rule(expected=expected, type=type_, number_hint=f" from {low:,} to {high:,}")


def _choice(literal: Any) -> Rule:
    return Rule(expected="one of " + ", ".join(get_args(literal)), type=literal)


_COUNT = 2**31 - 1
MOST_PARALLEL = 64
"""Requests at once: more are a load test, not a test of the context."""

_LOAD_RULES: Mapping[str, Rule] = {
    "kv_cache_type": _choice(KvCacheType),
    "flash_attention": Rule(expected="true or false", type=bool),
    "gpu_layers": _number(0, _COUNT),
    "gpu_offload": Rule(expected="a number from 0 to 1", type=Annotated[float, Meta(ge=0, le=1)]),
    "batch_size": _number(2, _COUNT),  # llama.cpp aborts in batches of one token
    "threads": _number(1, _COUNT),
    "n_cpu_moe": _number(0, _COUNT),
    "parallel": _number(1, MOST_PARALLEL),
}
LOAD_LISTS: Mapping[str, Rule] = {
    "tensor_split": Rule(
        expected="a list of numbers",
        item=Rule(expected="numbers from 0", type=Annotated[float, Meta(ge=0, le=1e9)]),
    ),
    "extra_args": Rule(
        expected="a list of texts",
        item=Rule(expected="texts", number_hint=" (in quotes)", convert=_argument),
    ),
}
"""Keys of `load` whose value is a list, which makes no variants."""
LOAD_KEYS: Mapping[str, Rule] = {
    **{name: replace(rule, or_list=True) for name, rule in _LOAD_RULES.items()},
    **LOAD_LISTS,
}
"""The keys of `load`, which is a mapping of its own; a list makes variants of the model."""

DEFAULT_KEYS: Mapping[str, Rule | None] = {
    "engine": _text(),
    "contexts": Rule(
        expected="ladder or a list of whole numbers",
        item=_number(1, MAX_CONTEXT_LENGTH, "whole numbers"),
        unique=True,
        instead="ladder",
    ),
    "load": None,
    "prompts": _choice(Prompts),
    "answer_tokens": _number(1, MAX_CONTEXT_LENGTH),
    "tags": Rule(expected="a list of words", item=_text(_tag)),
    "hosts": Rule(expected="a list of names or tags of hosts", item=_text(_host_word), unique=True),
}

HOST_KEYS: Mapping[str, Rule | None] = {
    "name": _text(_host_name),
    "url": _text(),
    "engine": _text(),
    "tags": Rule(expected="a list of words", item=_text(_host_word)),
    "slots": _number(1, 1000),
    "memory": Rule(expected=_MEMORY, type=int | str, convert=_bytes),
}
"""The keys of one of `hosts`."""

MODEL_KEYS: Mapping[str, Rule | None] = {
    "id": _text(),
    **DEFAULT_KEYS,
    "context_limit": _number(1, MAX_CONTEXT_LENGTH),
    "size_bytes": _number(0, 2**63 - 1),
    "source": _text(_source),
    "url": _text(_url),
    "api_key_env": Rule(expected="text", convert=_variable, private=True),
    "model": _text(),
    "sha256": Rule(
        expected="64 hexadecimal digits",
        type=Annotated[str, Meta(pattern=r"\A[0-9A-Fa-f]{64}\Z")],
        convert=str.lower,
    ),
    "type": _choice(ModelType),
    "architecture": _text(),
    "quantization": _text(),
    "capabilities": Rule(expected="a list of texts", item=_text()),
}

SERVER_KEYS = ("url", "api_key_env", "model")
"""Keys of models that a running server has: those of the engine `openai`."""
LOADING_ENGINES = ("lmstudio", "llamacpp", "llama-server", "ollama")
"""Built-in engines without these keys; registered ones may read them."""
ENGINES_SETTINGS: Mapping[tuple[str, str], str] = {
    ("ollama", "parallel"): (
        "Ollama's server has it for all models, in its environment variable OLLAMA_NUM_PARALLEL; to"
        " test what that gives, name the server with engine openai and url"
    ),
}
"""Engine and key of `load` that it cannot set -> what to do instead."""
