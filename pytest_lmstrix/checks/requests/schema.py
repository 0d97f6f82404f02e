"""JSON schemas of answers: given as they are, or by a type that can be read from JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

Convert = Callable[[str], Any]


class Schema(Struct, frozen=True):
    """What an answer must keep."""

    json: Mapping[str, Any]
    """The JSON schema, for the engine."""
    convert: Convert
    """Returns the value of an answer; raises `ValueError` for one that does not keep it."""


class Validator(Protocol):
    """Raises `ValueError` for a value that does not keep a schema."""

    def __call__(self, value: Any, /) -> None: ...


def read_schema(given: object) -> Schema:
    """Return the schema of a JSON schema or of a type: msgspec, pydantic, dataclass and others.

    Raises:
        TypeError: It is neither.
        ValueError: It is not a valid JSON schema.
    """
    if isinstance(given, Mapping):
        return _of_mapping(given)
    pydantic: Any = given
    if isinstance(given, type) and hasattr(given, "model_validate_json"):
        return Schema(pydantic.model_json_schema(), pydantic.model_validate_json)
    if isinstance(given, str | bytes | int | float | list | tuple | None):
        raise TypeError(f"schema must be a JSON schema (a dict) or a type, got {given!r:.80}")
    try:
        schema = with_object_root(msgspec.json.schema(given))
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(given)
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"schema: no JSON schema can be made for {given!r}: {error}") from None
    return Schema(schema, lambda text: decoder.decode(_json_text(text)))


def with_object_root(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return `schema` without a reference at its root, which few engines accept."""
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return dict(schema)
    definitions = schema["$defs"]
    return {**definitions[reference.rpartition("/")[2]], "$defs": definitions}


def validator(schema: Mapping[str, Any], name: str = "schema") -> Validator:
    """Return a function that checks values against a JSON schema, without any network.

    Raises:
        ValueError: It is not a valid JSON schema.
    """
    from jsonschema.exceptions import SchemaError, best_match
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        text = f"{name} is not a valid JSON schema: {error.json_path}: {error.message}"
        raise ValueError(text) from None
    checks = kind(schema, registry=Registry())

    def validate(value: Any) -> None:
        try:
            wrong = best_match(checks.iter_errors(value))
        except Unresolvable as error:
            raise TypeError(f"{name}: a reference leads nowhere: {error}") from None
        if wrong is not None:
            raise ValueError(f"{wrong.json_path}: {wrong.message}")

    return validate


def _of_mapping(given: Mapping[str, Any]) -> Schema:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(given))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"schema must be JSON: {error}") from None
    validate = validator(plain)

    def convert(text: str) -> Any:
        value = json.loads(_json_text(text))
        validate(value)
        return value

    return Schema(plain, convert)


def _json_text(text: str) -> str:
    """Return `text`, if it can be JSON.

    Raises:
        ValueError: It is empty, or in a code fence.
    """
    stripped = text.strip()
    if not stripped:
        raise ValueError("the answer is empty")
    if stripped.startswith("```"):
        raise ValueError("the answer is in a code fence")
    return stripped
