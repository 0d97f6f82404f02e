"""Models on the server's disk, and instances that its user has loaded."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from tests.standin.lmstudio.models.behaviours import AnyBehaviour, Check


class StandInModel(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model on disk."""

    key: str
    type: Literal["llm", "embedding"] = "llm"
    format: str = "gguf"
    """`safetensors` for a model that MLX runs."""
    size_bytes: int = 2_000_000_000
    max_context_length: int = 131_072
    default_context_length: int = 4096
    """The context of a load that requests none."""
    bytes_per_token: int = 1_000
    """Memory per token of context."""
    path: str = ""
    """`publisher/KEY/KEY.gguf` when empty."""
    architecture: str | None = "llama"
    quantization: str | None = "Q4_K_M"
    quantization_bits: int = 4
    vision: bool = False
    trained_for_tool_use: bool = False
    listing: dict[str, Any] = {}
    """Overrides fields of its entry in listings; `None` omits a field."""
    device: str | None = None
    """The linked device that has it; `None` for this machine."""
    variants: tuple[StandInModel, ...] = ()
    """Other quantizations under keys of their own; the first is selected."""
    behaviours: tuple[AnyBehaviour, ...] = ()
    dimension: int = 32
    """The numbers of a vector of an embedding model."""
    cuts_texts: bool = False
    """Whether a text to embed is cut to the context without an error."""
    bos_tokens: int = 1
    """Special tokens that the engine adds before every prompt."""
    load_steps: int = 4
    """Progress messages of a load."""
    prefill_steps: int = 4
    """Progress messages of a prefill; 0 for an engine that reports none."""
    reports_stats: bool = True
    """Whether a prediction has statistics besides its stop reason."""
    stats: dict[str, Any] = {}
    """Overrides fields of the statistics of a prediction."""
    prefill_tokens_per_second: float = 2_000.0
    decode_tokens_per_second: float = 50.0

    @property
    def file_path(self) -> str:
        """Its path below the models folder."""
        return self.path or f"publisher/{self.key}/{self.key}.gguf"

    def needed_bytes(self, context_length: int) -> int:
        """Return the memory of an instance with this context."""
        return self.size_bytes + self.bytes_per_token * context_length

    def grant(self, context_length: int) -> int:
        """Return the context granted to a load that requests `context_length`."""
        for behaviour in self.behaviours:
            context_length = behaviour.grant(context_length)
        return context_length

    def capacity(self, check: Check) -> int:
        """Return the largest context at which a correct check of this kind passes.

        How far above it `deep` fails depends on the depths of the facts. It excludes the memory
        that all models share, and faults of the server.
        """
        limits = [b.capacity(check, self.grant) for b in self.behaviours]
        return min([self.max_context_length, *(n for n in limits if n is not None)])

    def info(self) -> dict[str, Any]:
        """Return its entry in a listing."""
        entry: dict[str, Any] = {
            "type": self.type,
            "modelKey": self.key,
            "format": self.format,
            "displayName": self.key.title(),
            "publisher": self.file_path.split("/")[0],
            "path": self.file_path,
            "sizeBytes": self.size_bytes,
            "paramsString": "1B",
            "maxContextLength": self.max_context_length,
        }
        if self.architecture:
            entry["architecture"] = self.architecture
        if self.quantization:
            entry["quantization"] = {"name": self.quantization, "bits": self.quantization_bits}
        if self.type == "llm":
            entry |= {"vision": self.vision, "trainedForToolUse": self.trained_for_tool_use}
        if self.device:
            entry["deviceIdentifier"] = self.device
        if self.variants:
            keys = [variant.key for variant in self.variants]
            entry |= {"variants": keys, "selectedVariant": keys[0]}
        entry |= self.listing
        return {key: value for key, value in entry.items() if value is not None}


class UserInstance(Struct, frozen=True, kw_only=True):
    """An instance that the user has loaded, without a TTL: the plugin must not touch it."""

    key: str
    identifier: str = ""
    """The key when empty."""
    context_length: int = 4096
