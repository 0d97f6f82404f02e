"""The models that a server lists, in the shapes of several servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct

_NAMES = ("id", "key", "model", "name")
"""Fields with the name of a model: OpenAI's first, then those of LM Studio and Ollama."""
_DEFAULT_TAG = ":latest"


class Meta(Struct, frozen=True):
    """What llama.cpp adds to a listed model."""

    n_ctx: int | None = None
    n_ctx_train: int | None = None
    size: int | None = None


class ServerModel(Struct, frozen=True):
    """An entry of `/v1/models`."""

    id: str
    root: str | None = None
    """The weights, as vLLM and SGLang name them."""
    parent: str | None = None
    """The model that an adapter is for."""
    owned_by: str | None = None
    aliases: tuple[str, ...] | None = None
    """Further names, as llama.cpp has them."""
    max_model_len: int | None = None
    """The context in force (vLLM, SGLang)."""
    loaded_context_length: int | None = None
    """The context in force (LM Studio)."""
    context_length: int | None = None
    context_window: int | None = None
    max_context_length: int | None = None
    max_context_window: int | None = None
    """What the model could have, as many servers name it; not what is in force."""
    meta: Meta | None = None

    @property
    def context_in_force(self) -> int | None:
        meta = self.meta and self.meta.n_ctx
        return self.max_model_len or self.loaded_context_length or meta or None

    @property
    def declared_context(self) -> int | None:
        trained = self.meta and self.meta.n_ctx_train
        named = self.max_context_length or self.max_context_window
        return trained or named or self.context_length or self.context_window or None


class Listing(Struct, frozen=True):
    """The models of a server."""

    data: tuple[ServerModel, ...]

    def find(self, name: str) -> ServerModel | None:
        """Return the model that a request for `name` gets."""
        for names in ((name,), (name.removesuffix(_DEFAULT_TAG), f"{name}{_DEFAULT_TAG}")):
            for model in self.data:
                if model.id in names or name in (model.aliases or ()):
                    return model
        return None

    def context_of(self, name: str) -> int | None:
        """Return the context in force for a model or its parent, tokens; `None` if unknown."""
        model = self.find(name)
        if model is None:
            return None
        if known := model.context_in_force:
            return known
        parent = self.find(model.parent) if model.parent not in (None, name) else None
        return (parent and parent.max_model_len) or None


class ListingAnswer(Struct, frozen=True):
    """The answer of `/v1/models`; the list is in either of the fields, or null if it is empty."""

    data: Any = UNSET
    models: Any = UNSET

    def listing(self) -> Listing | None:
        """Return the listing; `None` if it is the answer of something else."""
        lists = [each for each in (self.data, self.models) if each is not UNSET]
        if not lists or not all(each is None or isinstance(each, list) for each in lists):
            return None
        entries: list[Any] = next((each for each in lists if each), [])
        return Listing(data=tuple(_read(entries)))


def _read(entries: list[Any]) -> Iterator[ServerModel]:
    for entry in entries:
        if not isinstance(entry, Mapping):
            continue
        names = (entry.get(field) for field in _NAMES)
        name = next((name for name in names if isinstance(name, str) and name), None)
        if name is None:
            continue
        try:
            yield msgspec.convert({**entry, "id": name}, ServerModel, strict=False)
        except msgspec.ValidationError:  # other fields of the same names
            yield ServerModel(id=name)
