"""The command line of `llama-server` for a load, by the flags that the program knows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LoadSettings
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp.binary import Flag

_ALWAYS = (
    ("--host", "127.0.0.1"),
    ("--port", "0"),
)
_WHERE_KNOWN = (
    ("--fit", "off"),
    ("--no-context-shift", None),
    ("--jinja", None),
    ("--offline", None),
    ("--cache-ram", "0"),  # else up to 8 GiB of old prompts are kept beside the KV cache
    ("--no-cache-idle-slots", None),
    ("--sse-ping-interval", "-1"),  # a ping does not show progress of the model
)
"""Programs without these flags do not have what they switch off either."""
_DRY_RUN = (("--fit", "on"), ("--verbosity", "4"), ("--no-warmup", None))
"""llama.cpp plans the load, and logs its memory table at this verbosity."""
_EMBEDS = ("--embeddings", "--embedding")
_UNSPECIFIED, _NO_POOLING, _LAST_TOKEN = -1, 0, 3
_PADDING = 256
"""llama.cpp rounds a context length up to a multiple of this."""
_CPU_BATCH_TOKENS, _GPU_BATCH_TOKENS = 128, 512
"""Prefilled between two heartbeats, as the embedded engine does."""


class EmbeddingLoad(Struct, frozen=True, kw_only=True):
    """How an embedding model is loaded."""

    takes_mean: bool
    """Whether the mean of the tokens is the vector: for models that do not name their pooling."""
    in_one_batch: bool
    """Whether a text must fit one batch, as for all poolings but that of the last token."""


def embedding_load(pooling_type: int | None) -> EmbeddingLoad:
    """Return how a model of this `llama_pooling_type` is loaded."""
    return EmbeddingLoad(
        takes_mean=pooling_type in (None, _UNSPECIFIED, _NO_POOLING),
        in_one_batch=pooling_type != _LAST_TOKEN,
    )


def serve_arguments(
    path: Path,
    context_length: int,
    load: LoadSettings,
    flags: Mapping[str, Flag],
    *,
    gpu: bool,
    replace_chat_template: bool = False,
    embedding: EmbeddingLoad | None = None,
    dry_run: bool = False,
) -> list[str]:
    """Return the arguments that load the model in `path`, or with `dry_run` plan the load first.

    Raises:
        Failure: The program does not know the flag of a setting, or has no dry run.
    """
    words = ["--model", str(path), "--ctx-size", str(context_length * load.requests)]
    words += ["--parallel", str(load.requests)]
    words += [word for pair in _ALWAYS for word in pair]
    known = dict(pair for pair in _WHERE_KNOWN if pair[0] in flags)
    if dry_run:
        known |= _DRY_RUN
        for flag, _ in _DRY_RUN:
            if flag not in flags:
                raise unsupported(flag, "its dry run of a load")
    for flag, value in known.items():
        words += [flag] if value is None else [flag, value]
    if replace_chat_template:
        words += ["--chat-template", "chatml"]
    batch = load.batch_size or (_GPU_BATCH_TOKENS if gpu else _CPU_BATCH_TOKENS)
    part = min(batch, _GPU_BATCH_TOKENS)
    if embedding is not None and embedding.in_one_batch:
        batch = part = load.batch_size or -(-context_length // _PADDING) * _PADDING
    words += ["--batch-size", str(batch), "--ubatch-size", str(part)]
    if embedding is not None:
        words += _embedding_flags(embedding, load, flags)
    for setting, arguments in _settings(load, flags):
        if arguments and arguments[0] not in flags:
            raise unsupported(arguments[0], f"the setting {setting!r}")
        words += arguments
    for word in _flags_in(load.extra_args or ()):
        if word not in flags:
            raise unsupported(word, "'extra_args'")
    return [*words, *(load.extra_args or ())]


def _embedding_flags(
    embedding: EmbeddingLoad, load: LoadSettings, flags: Mapping[str, Flag]
) -> list[str]:
    flag = next((each for each in _EMBEDS if each in flags), None)
    if flag is None:
        raise unsupported(_EMBEDS[0], "an embedding model")
    takes_mean = embedding.takes_mean and "--pooling" not in (load.extra_args or ())
    return [flag, "--pooling", "mean"] if takes_mean and "--pooling" in flags else [flag]


def _settings(load: LoadSettings, flags: Mapping[str, Flag]) -> Iterator[tuple[str, list[str]]]:
    if load.gpu_layers is not None:
        yield "gpu_layers", ["--n-gpu-layers", str(load.gpu_layers)]
    if load.tensor_split is not None:
        yield "tensor_split", ["--tensor-split", ",".join(f"{n:g}" for n in load.tensor_split)]
    if load.n_cpu_moe is not None:
        yield "n_cpu_moe", ["--n-cpu-moe", str(load.n_cpu_moe)]
    if load.kv_cache_type is not None:
        yield "kv_cache_type", ["--cache-type-k", load.kv_cache_type]
        yield "kv_cache_type", ["--cache-type-v", load.kv_cache_type]
    if load.threads is not None:
        yield "threads", ["--threads", str(load.threads)]
        yield "threads", ["--threads-batch", str(load.threads)]
    if load.flash_attention is not None:
        yield "flash_attention", _flash_attention(load.flash_attention, flags)


def _flash_attention(wanted: bool, flags: Mapping[str, Flag]) -> list[str]:
    flag = flags.get("--flash-attn")
    if flag is None or flag.takes_value:
        return ["--flash-attn", "on" if wanted else "off"]
    return ["--flash-attn"] if wanted else []  # in older programs a switch that is off by default


def _flags_in(words: Iterable[str]) -> Iterator[str]:
    """Yield the words that are flags, and not values such as the number -1."""
    return (word for word in words if word.startswith("-") and not word[1:2].isdigit())


def unsupported(flag: str, where: str) -> Failure:
    """Return the error for a flag that the program does not know."""
    return Failure(
        f"this llama-server does not know {flag}, which {where} needs; update it, or take the"
        " setting out of the manifest",
        verdict=Verdict.HOST_TROUBLE,
        phase="load",
        final=True,
    )
