"""What a request may ask for besides its text: optional arguments of an engine's instance."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from msgspec import Struct

from pytest_lmstrix.core.types import Message, Reply


class Unable(Exception):
    """An engine, or a model in it, cannot do what a request asks for.

    Where `option` names the optional argument and the request can do without, it is repeated so.
    """

    def __init__(self, text: str, *, option: str = "") -> None:
        super().__init__(text)
        self.option = option


class Tool(Struct, frozen=True, kw_only=True):
    """A function that a model may ask to be called."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any]
    """A JSON schema of an object."""

    @property
    def declaration(self) -> dict[str, Any]:
        """The tool in OpenAI's form, which most engines take."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }
        return {"type": "function", "function": function}


class Image(Struct, frozen=True, kw_only=True):
    """An image that belongs to the last message."""

    data: bytes
    media_type: str
    """Such as `image/png`."""

    @property
    def file_name(self) -> str:
        return f"image.{self.media_type.rpartition('/')[2]}"

    @property
    def base64(self) -> str:
        return b64encode(self.data).decode("ascii")

    @property
    def data_uri(self) -> str:
        return f"data:{self.media_type};base64,{self.base64}"


class Embeddings(Struct, frozen=True, kw_only=True):
    """The vectors of texts, in their order."""

    vectors: list[list[float]]
    prompt_tokens: int | None = None
    """Tokens of all texts as the engine counted them, special ones included."""


class CompletionOptions(TypedDict, total=False):
    """Optional arguments of `Instance.complete`."""

    seed: int
    """Of the random choices at a temperature above 0."""
    stop: tuple[str, ...]
    """Texts at which the answer ends, not part of it."""
    schema: Mapping[str, Any]
    """The JSON schema that the answer is made to keep."""


class ChatOptions(CompletionOptions, total=False):
    """Optional arguments of `Instance.chat`."""

    tools: tuple[Tool, ...]
    images: tuple[Image, ...]
    thinking: bool
    """Whether the model thinks before it answers; each engine has a default of its own."""


class VectorsOnly:
    """The requests that an instance of an embedding model refuses."""

    def complete(
        self, prompt: str, *, max_tokens: int, temperature: float = 0.0,
        **options: Unpack[CompletionOptions],
    ) -> Reply:  # fmt: skip
        raise Unable("an embedding model gives vectors, and no answers")

    def chat(
        self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0,
        **options: Unpack[ChatOptions],
    ) -> Reply:  # fmt: skip
        raise Unable("an embedding model gives vectors, and no answers")
