"""The optional arguments of a request, and how every stand-in answers them."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Sequence
from itertools import groupby
from random import Random
from typing import Any

from msgspec import Struct

from tests.standin.lmstudio.models.behaviours import (
    Behaviour,
    CallsTool,
    IgnoresSchema,
    SeesStripes,
    UsesTools,
)

_COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}


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
    pictures: tuple[bytes, ...] = ()
    """Their files, where the server has them at hand."""

    def reply(
        self, prompt: str, reply: str, temperature: float, behaviours: Sequence[Behaviour]
    ) -> str:
        """Return the text instead of `reply`: it keeps the schema and depends on the seed."""
        kinds = {type(each): each for each in behaviours}
        if self.schema is not None and IgnoresSchema not in kinds:
            return json.dumps(instance_of(self.schema, self.schema))
        if self.pictures and SeesStripes in kinds:
            return ", ".join(stripes_in(self.pictures[-1]))
        if self.images:
            return f"I see {self.images} images."
        user = kinds.get(UsesTools)
        if self.tools and isinstance(user, UsesTools):
            return _written(user, _understood(user, self.tools, prompt), reply)
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
        users = [each for each in behaviours if isinstance(each, UsesTools)]
        if users and not results:
            calls = _understood(users[-1], self.tools, prompt)
            return tuple(filter(None, (_spoilt(call, users[-1].fault) for call in calls)))
        if scripted or results:
            now = (s for s in scripted if s.after == results and s.when in prompt)
            return tuple(Called(each.name, each.arguments) for each in now)
        functions = [tool["function"] for tool in self.tools]
        return tuple(
            Called(each["name"], json.dumps(instance_of(each["parameters"], each["parameters"])))
            for each in functions
            if each["name"] in prompt[-200:]
        )


def _understood(
    user: UsesTools, tools: Sequence[dict[str, Any]], prompt: str
) -> tuple[Called, ...]:
    """Return the calls that the last message asks for.

    It is about a tool if it has all words of its name; there is a call for each value of an `enum`
    in it, with the number that follows.
    """
    request = prompt.rpartition("<|user|>\n")[2].lower()
    found = []
    for function in (tool["function"] for tool in tools):
        parameters = function["parameters"]["properties"]
        if not all(word in request for word in function["name"].split("_")):
            continue
        for name, each in parameters.items():
            for value in (value for value in each.get("enum", ()) if value in request):
                number = re.search(r"\d+", request[request.index(value) :])
                rest = {other: int(number[0]) for other in parameters if other != name and number}
                found.append(Called(function["name"], json.dumps({name: value, **rest})))
    if not found and user.eager:
        function = tools[-1]["function"]
        arguments = instance_of(function["parameters"], function["parameters"])
        found.append(Called(function["name"], json.dumps(arguments)))
    return tuple(found[: user.most])


def _spoilt(call: Called, fault: str | None) -> Called | None:
    """Return the call as the engine finds it; `None` if it finds none."""
    match fault:
        case "wrong_name":
            return Called(call.name.replace("_", "-"), call.arguments)
        case "not_an_object":
            return Called(call.name, json.dumps(next(iter(call.parsed().values()))))
        case "cut_off":
            return Called(call.name, call.arguments[:-4])
        case None:
            return call
    return None


def _written(user: UsesTools, calls: Sequence[Called], reply: str) -> str:
    """Return the text of the reply, which may have the calls."""
    texts = [f'{{"name": "{call.name}", "arguments": {call.arguments}}}' for call in calls]
    match user.fault:
        case "fenced" if texts:
            return "\n".join(["```json", *texts, "```"])
        case "in_reasoning" if texts:
            return f"<think>{texts[0]}</think>Done."
        case "none" if texts:
            return "I have done that."
    return reply


def stripes_in(picture: bytes) -> list[str]:
    """Return the colours down the middle of a PNG, by their nearest names."""
    width, height = struct.unpack(">II", picture[16:24])
    at, data = 8, b""
    while at < len(picture):
        (size,) = struct.unpack(">I", picture[at : at + 4])
        if picture[at + 4 : at + 8] == b"IDAT":
            data += picture[at + 8 : at + 8 + size]
        at += 12 + size
    line = 1 + 3 * width
    rows = zlib.decompress(data)
    assert len(rows) == height * line
    assert not any(rows[::line]), "the rows have filters"
    middle = (rows[y * line + 1 + 3 * (width // 2) :][:3] for y in range(height))
    return [name for name, _ in groupby(map(_nearest, middle))]


def _nearest(pixel: bytes) -> str:
    def distance(name: str) -> int:
        return sum((a - b) ** 2 for a, b in zip(pixel, _COLOURS[name], strict=True))

    return min(_COLOURS, key=distance)


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
