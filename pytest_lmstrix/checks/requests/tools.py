"""Tools that tests offer to a model: functions with type hints, or JSON schemas."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from pytest_lmstrix.checks.requests.schema import validator
from pytest_lmstrix.engines.request import Tool

AnyTool = Tool | Mapping[str, Any] | Callable[..., Any]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def read_tools(tools: object) -> tuple[Tool, ...]:
    """Return the tools of a request.

    Raises:
        TypeError: One is neither a function nor a JSON schema.
        ValueError: A name is invalid or given twice, or a schema is not valid.
    """
    if isinstance(tools, str | Mapping) or not isinstance(tools, Iterable):
        raise TypeError(f"tools must be a list of functions or JSON schemas, got {tools!r}")
    found = tuple(map(_read_tool, tools))
    names = [tool.name for tool in found]
    for tool in found:
        if not _NAME.fullmatch(tool.name):
            raise ValueError(f"{tool.name!r} is not a valid name of a tool")
        if names.count(tool.name) > 1:
            raise ValueError(f"two tools have the name {tool.name!r}")
        validator(tool.parameters, f"parameters of tool {tool.name!r}")
    return found


def _read_tool(given: object) -> Tool:
    if isinstance(given, Tool):
        return given
    if isinstance(given, Mapping):
        return _of_mapping(given)
    if callable(given):
        return _of_function(given)
    raise TypeError(f"a tool must be a function or a JSON schema, got {given!r}")


def _of_mapping(given: Mapping[str, Any]) -> Tool:
    """Return the tool of OpenAI's form, with or without its outer object."""
    inner = given.get("function", given)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise TypeError(f"a tool has a name, a description and parameters, got {dict(given)!r}")
    parameters = inner.get("parameters", {"type": "object", "properties": {}})
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters of a tool must be a JSON schema, got {parameters!r}")
    try:
        plain = json.loads(json.dumps(parameters))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"parameters of a tool must be JSON: {error}") from None
    description = str(inner.get("description") or "")
    return Tool(name=inner["name"], description=description, parameters=plain)


def _of_function(function: Callable[..., Any]) -> Tool:
    name = getattr(function, "__name__", "")
    try:
        parameters = inspect.signature(function).parameters
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise TypeError(f"the type hints of tool {name!r} cannot be read: {error}") from None
    for parameter in parameters.values():
        if parameter.kind not in _BY_NAME:
            raise TypeError(f"tool {name!r}: {parameter} cannot be given by name")
        if parameter.name not in hints:
            raise TypeError(f"tool {name!r}: {parameter.name} has no type hint")
    try:
        schemas, definitions = msgspec.json.schema_components(
            [hints[each] for each in parameters], ref_template="#/$defs/{name}"
        )
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"tool {name!r}: {error}") from None
    schema: dict[str, Any] = {
        "type": "object",
        "properties": dict(zip(parameters, schemas, strict=True)),
        "required": [each.name for each in parameters.values() if each.default is each.empty],
        "additionalProperties": False,
    }
    if definitions:
        schema["$defs"] = definitions
    return Tool(name=name, description=inspect.getdoc(function) or "", parameters=schema)
