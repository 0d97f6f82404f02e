"""The data types of the plugin: frozen structs, hashable where pytest compares them.

Sizes are in tokens (`context_length`), bytes (`*_bytes`) and seconds (`*_seconds`).
"""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from pytest_lmstrix.core.measured import Speed, drop_insane
from pytest_lmstrix.core.sanitize import well_formed
from pytest_lmstrix.core.verdicts import Outcome, Verdict

MAX_CONTEXT_LENGTH = 2**31 - 1
"""Largest valid context length, in tokens."""

LEAST_RATE_TOKENS = 64
"""A rate from fewer tokens is not recorded, shown or compared."""

KvCacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
ModelType = Literal["llm", "embedding"]
Prompts = Literal["completion", "chat"]
Origin = Literal["case", "search"]
Proof = Literal["proven", "failed", "inconclusive"]
"""What `capability` found of a capability that is declared."""
PROOFS: tuple[Proof, ...] = get_args(Proof)
ANY_SIZE = "any size"
"""Note of a result whose load fails in the same way at the smallest size that was tried."""


class LoadSettings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Load settings of a model; `None` means the engine's default."""

    kv_cache_type: KvCacheType | None = None
    flash_attention: bool | None = None
    gpu_layers: int | None = None
    """Layers kept on the GPU (llamacpp, llama-server)."""
    gpu_offload: float | None = None
    """Share of the layers kept on the GPU, 0..1 (lmstudio)."""
    batch_size: int | None = None
    """Tokens prefilled in one batch."""
    threads: int | None = None
    """CPU threads (llamacpp, llama-server)."""
    tensor_split: tuple[float, ...] | None = None
    """Share of the layers on each GPU, in any unit (llama-server)."""
    n_cpu_moe: int | None = None
    """Layers whose experts stay in the memory of the processor (llama-server)."""
    extra_args: tuple[str, ...] | None = None
    """Further arguments for the program (llama-server)."""
    parallel: int | None = None
    """Requests at once, each with the tested context (lmstudio, llamacpp, llama-server); how many
    are sent (openai)."""

    @property
    def requests(self) -> int:
        """How many requests at once a load is for."""
        return self.parallel or 1


class Model(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of the manifest, defaults applied."""

    id: str
    engine: str
    context_limit: int | None = None
    """Declared maximum; by default as the engine reports it."""
    size_bytes: int | None = None
    tags: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """Names or tags of hosts where it may be tested: on those with one of them; empty: on any."""
    contexts: tuple[int, ...] | None = None
    """Sizes to test; `None` means the ladder."""
    source: str | None = None
    """Location of the weights; paths are relative to the manifest."""
    sha256: str | None = None
    url: str | None = None
    """The server that has it (openai)."""
    api_key_env: str | None = None
    """The environment variable that holds the server's API key (openai)."""
    served_name: str | None = msgspec.field(default=None, name="model")
    """Its name on the server; by default its id (openai)."""
    load: LoadSettings = LoadSettings()
    prompts: Prompts = "completion"
    answer_tokens: int | None = None
    """Budget of a chat answer, its reasoning included; `None` for the default."""
    type: ModelType | None = None
    architecture: str | None = None
    quantization: str | None = None
    capabilities: tuple[str, ...] = ()
    fingerprint: str | None = None
    """Identifies the weights, as far as known before a load; see `fingerprint`."""
    variant_of: str | None = None
    """The id in the manifest of which this is one combination of load settings."""

    @property
    def name(self) -> str:
        """The name in the engine, the same for all variants."""
        return self.variant_of or self.id


class Host(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A server that loads models."""

    address: str
    """As `--lmstrix-host` has it, such as `127.0.0.1:1234` or `ollama://127.0.0.1:11434`."""
    name: str | None = None
    tags: tuple[str, ...] = ()
    slots: int = 1
    """How many models may be loaded on it at once."""
    memory_bytes: int | None = None
    """For models; `None` if unknown."""


class ModelFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An engine's description of one of its models."""

    id: str
    type: ModelType = "llm"
    context_limit: int | None = None
    size_bytes: int | None = None
    path: str | None = None
    architecture: str | None = None
    quantization: str | None = None
    capabilities: tuple[str, ...] = ()
    source: str | None = None
    """The key `source` for a manifest, if the engine needs one."""
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        drop_insane(self)


ToolFault = Literal["fenced", "in_text", "in_reasoning", "wrong_name", "not_an_object", "cut_off",
                    "wrong_arguments"]  # fmt: skip


class ToolCall(Struct, frozen=True, kw_only=True):
    """A call of a tool that a model asks for."""

    name: str
    arguments: Any
    """An object; from an engine, and with a fault, also the text that should be one."""
    id: str = ""
    fault: ToolFault | None = None
    """Why it is not well-formed; found after the reply, not by engines."""
    detail: str = ""
    """The fault in words."""


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Of the assistant: the calls that it asked for, each with an id."""
    tool_call_id: str = ""  # of a tool: the call that has this result
    tool_name: str = ""


class Reply(Struct, frozen=True, kw_only=True):
    """A model's answer and the engine's measurements; `None` means not measured."""

    text: str
    """The answer without any reasoning."""
    reasoning: str = ""
    stop_reason: Literal["stop", "length"] | None = None
    """`length`: the token budget or the context was exhausted."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The calls that the engine found in the answer."""
    prompt_tokens: int | None = None
    """Prompt tokens as the engine counted them, cached ones included."""
    cached_prompt_tokens: int | None = None
    """Prompt tokens found in the KV cache, not prefilled again."""
    completion_tokens: int | None = None
    likeliest: dict[str, float] = {}
    """Log-probabilities of the likeliest first tokens, where they were asked for."""
    ttft_seconds: float | None = None
    """From the request to the first token, prefill included."""
    prefill_seconds: float | None = None
    """Prefill of the tokens that were not cached, by the engine's own clock."""
    decode_seconds: float | None = None
    """Decoding of all its tokens, as they were streamed."""
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    """By the engine's own clock."""

    def __post_init__(self) -> None:
        # Engines split surrogate pairs, and models emit single halves.
        force_setattr(self, "text", well_formed(self.text))
        force_setattr(self, "reasoning", well_formed(self.reasoning))
        drop_insane(self)


class Case(Struct, frozen=True, kw_only=True):
    """A model at one context length."""

    model: Model
    context_length: int

    @property
    def id(self) -> str:
        """The part in brackets of a node id, such as `llama-3.2-3b-instruct-30000`."""
        return f"{self.model.id}-{self.context_length}"


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one check found: a line of the registry."""

    schema: int = 1
    run: str
    """Identifies the pytest run."""
    at: datetime
    """Time of the verdict, UTC."""
    model: str
    engine: str
    host: str | None = None
    engine_version: str | None = None
    fingerprint: str | None = None
    check: str
    """A built-in one, such as `full` (see `core.checks`), or the node name of a user's own."""
    origin: Origin = "case"
    """`search` for a size tried by a size search, `case` for a requested size."""
    context_length: int
    """Requested, tokens."""
    granted_context_length: int | None = None
    verdict: Verdict
    outcome: Outcome
    detail: str = ""
    replies: tuple[str, ...] = ()
    load_seconds: float | None = None
    ttft_seconds: float | None = None
    prompt_tokens: int | None = None
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    prefill_tokens: int | None = None
    """Tokens from which the prefill rate was measured."""
    decode_tokens: int | None = None
    """Tokens from which the decode rate was measured."""
    speed: Speed | None = None
    """What `speed` measured; its rates above are medians in the filled context."""
    peak_memory_bytes: int | None = None
    estimated_memory_bytes: int | None = None
    """Memory that the engine planned for the load, before it; see `--lmstrix-fit`."""
    recall: dict[str, bool] | None = None
    """Depth such as "0.25" -> whether the needle there was recalled."""
    capabilities: dict[str, Proof] | None = None
    """What `capability` found of each that is declared."""
    tiers: dict[str, bool] | None = None
    """`resist` and `follow` -> whether `deep` passed that too; without what its control failed."""
    seed: int | None = None
    check_version: int = 1
    """Increased when the check changes."""
    machine: str | None = None
    """Id of the machine, since only measurements of the same machine are comparable."""
    settings: str = ""
    """The load settings, as compact JSON; empty for the engine's defaults."""
    form: Prompts | None = None
    """The form of the prompts: `completion` or `chat`; `None` where no built-in check asked."""
    samples: int | None = None
    """How often the body of a user's check ran; `None` for once, whatever the result."""
    passed_samples: int | None = None
    """How many of the samples passed."""
    required_samples: int | None = None
    """How many of the samples had to pass."""
    retried: bool = False
    """Whether a retry was needed."""
    notes: tuple[str, ...] = ()
    """Remarks besides the verdict, such as `slow: ...`."""
    imported: bool = False
    """Whether another tool recorded it: listed, but never evidence for or against a model."""


class Acceptance(Struct, frozen=True, kw_only=True, tag_field="kind", tag="accept"):
    """A line of the registry: someone accepted the failures of a model as they are."""

    schema: Literal[2] = 2
    """Readers that know only results skip lines of a later schema."""
    at: datetime
    by: str
    """The user who accepted them."""
    model: str


class Medians(Struct, frozen=True, kw_only=True):
    """The measurements of `speed` in the form of a `Result`."""

    speed: Speed
    ttft_seconds: float | None = None
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    prefill_tokens: int | None = None
    decode_tokens: int | None = None


class ProbeResult(Struct, frozen=True, kw_only=True):
    """The result of a probe."""

    verdict: Verdict
    detail: str = ""
    recall: dict[str, bool] | None = None
    capabilities: dict[str, Proof] | None = None
    tiers: dict[str, bool] | None = None
    seed: int | None = None
    form: Prompts | None = None
    """The form of the prompts that gave this result."""
    samples: int | None = None
    passed_samples: int | None = None
    required_samples: int | None = None
    notes: tuple[str, ...] = ()
    only_this_model: bool = False
    """Whether it shows nothing about the host with which other models run."""
    medians: Medians | None = None
    """What `speed` measured."""


def fingerprint(*, sha256: str | None, size_bytes: int | None, path: str | None) -> str | None:
    """Return an id of weights: their hash if known, else size and path; `None` if unknown."""
    if sha256 is not None:
        return f"sha256:{sha256}"
    known = [f"size:{size_bytes}"] if size_bytes is not None else []
    if path is not None:
        known.append(f"path:{path}")
    return " ".join(known) or None


def settings_of(model: Model, *, ignored: Container[str] = ()) -> str:
    """Return load settings and prompt format in the form of `Result.settings`.

    Settings that the engine `ignored` are left out.
    """
    given = msgspec.to_builtins(model.load)
    settings = {name: value for name, value in given.items() if name not in ignored}
    if model.prompts != "completion":
        settings["prompts"] = model.prompts
    return msgspec.json.encode(settings).decode() if settings else ""
