"""The optional arguments of a request, and how every stand-in answers them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from msgspec import Struct

from tests.standin.lmstudio.models.behaviours import Behaviour, CallsTool


class Called(Struct, frozen=True):
    """A call of a tool; `arguments` are the text that the model wrote."""

    name: str
    arguments: str

    def parsed(self) -> Any:
        """Return the arguments as JSON, or their text where they are not."""
        try:
            return json.loads(self.arguments)
        except ValueError:
            return self.arguments


class Asked(Struct, frozen=True, kw_only=True):
    """What a request asks for besides its text."""

    seed: int | None = None
    schema: dict[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()
    images: int = 0

    def reply(self, reply: str, temperature: float) -> str:
        """Return the text instead of `reply`: it keeps the schema and depends on the seed."""
        if self.schema is not None:
            return json.dumps(instance_of(self.schema, self.schema))
        if self.images:
            return f"I see {self.images} images."
        if self.seed is not None and temperature > 0:
            return f"{Random(self.seed).randrange(10**6)} {reply}"
        return reply

    def calls(
        self, prompt: str, behaviours: Sequence[Behaviour], results: int
    ) -> tuple[Called, ...]:
        """Return the calls of the tools that the end of `prompt` names, or of a behaviour.

        `results` are those of tools in the history.
        """
        if not self.tools:
            return ()
        scripted = [each for each in behaviours if isinstance(each, CallsTool)]
        if scripted or results:
            now = (s for s in scripted if s.after == results and s.when in prompt)
            return tuple(Called(each.name, each.arguments) for each in now)
        functions = [tool["function"] for tool in self.tools]
        return tuple(
            Called(each["name"], json.dumps(instance_of(each["parameters"], each["parameters"])))
            for each in functions
            if each["name"] in prompt[-200:]
        )


def instance_of(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """Return a value that keeps `schema`, of the kinds that the tests use."""
    if "$ref" in schema:
        return instance_of(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: instance_of(each, root) for name, each in properties.items()}
        case "array":
            return [instance_of(schema.get("items", {}), root)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return "Paris"
