"""Tiny models of many architectures that really answer, made without any training.

Attention and feed-forward layers add zero, so that the state of a token is its embedding, and those
are orthogonal: the output matrix is a table of the token that follows each. "is" is followed by
" 96", "=" by " 5", ":" by " Hello!": enough to pass `fast` and `full`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

from tests.standin.gguf_bytes import ALIGNMENT, F32, TensorInfo, gguf_bytes

WIDTH = 320
INNER = 64
HEADS, KV_HEADS, HEAD = 5, 1, 64
EXPERTS, CONTEXT_LENGTH = 4, 4096
Shapes = dict[str, tuple[int, ...]]

_FOLLOWERS = {"Ġis": "Ġ96", "Ġ=": "Ġ5", ":": "ĠHello!"}
_OTHERS = "Ġso"
"""The token that follows all others."""
_END = "<|end|>"
_MERGES = ["Ġ i", "Ġi s", "Ġ ="]


def _vocabulary() -> list[str]:
    """The 256 bytes as the tokenizer of GPT-2 writes them, and some words."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = (byte for byte in range(256) if byte not in visible)
    letters = [chr(byte) for byte in visible] + [chr(256 + at) for at, _ in enumerate(hidden)]
    words = [merge.replace(" ", "") for merge in _MERGES]
    return [*letters, *words, *_FOLLOWERS.values(), _OTHERS, _END]


TOKENS = _vocabulary()


def write_tiny_model(
    path: Path, architecture: str = "llama", *, nan: bool = False, **metadata: object
) -> Path:
    """A model that answers; with `nan`, one whose output is not a number.

    `__` in the name of a further value of metadata stands for a dot, `None` takes it out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tiny_model(architecture, nan=nan, **metadata))
    return path


def tiny_model(architecture: str = "llama", *, nan: bool = False, **metadata: object) -> bytes:
    """The bytes of `write_tiny_model`."""
    metadata = {name.replace("__", "."): value for name, value in metadata.items()}
    tensors, data = _lay_out(_shapes(architecture), nan=nan)
    return gguf_bytes(_metadata(architecture, metadata), tensors, data=data)


def write_tiny_split(folder: Path, name: str) -> list[Path]:
    """A model that answers, in two files."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = _shapes("llama")
    paths = [folder / f"{name}-{number}-of-00002.gguf" for number in ("00001", "00002")]
    for number, path in enumerate(paths):
        split: dict[str, object] = {
            "split.no": number, "split.count": 2, "split.tensors.count": len(shapes),
        }  # fmt: skip
        half = list(shapes)[number::2]
        tensors, data = _lay_out({each: shapes[each] for each in half})
        values = split if number else _metadata("llama", split)
        path.write_bytes(gguf_bytes(values, tensors, data=data))
    return paths


def _metadata(architecture: str, more: Mapping[str, object]) -> dict[str, object]:
    values, _ = ARCHITECTURES[architecture]
    values = {
        "general.architecture": architecture,
        "general.file_type": 0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [1] * (len(TOKENS) - 1) + [3],
        "tokenizer.ggml.merges": _MERGES,
        "tokenizer.ggml.eos_token_id": TOKENS.index(_END),
        "tokenizer.ggml.add_bos_token": False,
        f"{architecture}.context_length": CONTEXT_LENGTH,
        f"{architecture}.embedding_length": WIDTH,
        f"{architecture}.block_count": 1,
        **{f"{architecture}.{key}": value for key, value in values.items()},
        **more,
    }
    return {name: value for name, value in values.items() if value is not None}


def _shapes(architecture: str) -> Shapes:
    _, layer = ARCHITECTURES[architecture]
    shapes: Shapes = {
        "token_embd.weight": (WIDTH, len(TOKENS)),
        "output_norm.weight": (WIDTH,),
        "output.weight": (WIDTH, len(TOKENS)),
        **{f"blk.0.{name}": shape for name, shape in layer().items()},
    }
    if architecture == "rwkv6":
        shapes |= {f"{name}.{part}": (WIDTH,) for name in ("token_embd_norm", "output_norm")
                   for part in ("weight", "bias")}  # fmt: skip
    return shapes


def _lay_out(shapes: Shapes, *, nan: bool = False) -> tuple[list[TensorInfo], bytes]:
    """Return the list of tensors and their data."""
    tensors, data = [], b""
    for name, shape in shapes.items():
        data += bytes(-len(data) % ALIGNMENT)
        tensors.append(TensorInfo(name, shape, F32, len(data)))
        numbers = array("f", [float("nan")]) * prod(shape) if nan else _numbers(name, shape)
        data += numbers.tobytes()
    return tensors, data


def _numbers(name: str, shape: tuple[int, ...]) -> array[float]:
    if "norm" in name and not name.endswith("bias"):
        return array("f", [1.0]) * prod(shape)
    numbers = array("f", [0.0]) * prod(shape)
    if name == "token_embd.weight":
        for token in range(len(TOKENS)):
            numbers[token * WIDTH + token] = 1.0
    elif name == "output.weight":
        for token, text in enumerate(TOKENS):
            last = text == _OTHERS or text in _FOLLOWERS.values()
            follower = _END if last else _FOLLOWERS.get(text, _OTHERS)
            numbers[TOKENS.index(follower) * WIDTH + token] = 1.0
    return numbers


def _weights(**shapes: tuple[int, ...]) -> Shapes:
    return {f"{name}.weight": shape for name, shape in shapes.items()}


def _attention() -> Shapes:
    width = HEADS * HEAD
    return _weights(
        attn_norm=(WIDTH,), attn_q=(WIDTH, width), attn_k=(WIDTH, KV_HEADS * HEAD),
        attn_v=(WIDTH, KV_HEADS * HEAD), attn_output=(width, WIDTH),
    )  # fmt: skip


def _head_norms() -> Shapes:
    return _weights(attn_q_norm=(HEAD,), attn_k_norm=(HEAD,))


def _feed_forward() -> Shapes:
    return _weights(
        ffn_norm=(WIDTH,), ffn_gate=(WIDTH, INNER), ffn_up=(WIDTH, INNER), ffn_down=(INNER, WIDTH)
    )


def _experts() -> Shapes:
    return _weights(
        ffn_gate_inp=(WIDTH, EXPERTS), ffn_gate_exps=(WIDTH, INNER, EXPERTS),
        ffn_up_exps=(WIDTH, INNER, EXPERTS), ffn_down_exps=(INNER, WIDTH, EXPERTS),
    )  # fmt: skip


def _llama() -> Shapes:
    return _attention() | _feed_forward()


def _qwen2() -> Shapes:
    sizes = {"attn_q": HEADS * HEAD, "attn_k": KV_HEADS * HEAD, "attn_v": KV_HEADS * HEAD}
    return _llama() | {f"{name}.bias": (size,) for name, size in sizes.items()}


def _qwen3() -> Shapes:
    return _llama() | _head_norms()


def _gemma3() -> Shapes:
    return _qwen3() | _weights(post_attention_norm=(WIDTH,), post_ffw_norm=(WIDTH,))


def _phi3() -> Shapes:
    width = HEADS * HEAD
    return _weights(
        attn_norm=(WIDTH,), attn_qkv=(WIDTH, width + 2 * KV_HEADS * HEAD),
        attn_output=(width, WIDTH), ffn_norm=(WIDTH,), ffn_up=(WIDTH, 2 * INNER),
        ffn_down=(INNER, WIDTH),
    )  # fmt: skip


def _qwen3moe() -> Shapes:
    return _attention() | _head_norms() | _experts() | _weights(ffn_norm=(WIDTH,))


def _gpt_oss() -> Shapes:
    sizes = {
        "attn_output": (WIDTH,), "ffn_gate_inp": (EXPERTS,), "ffn_gate_exps": (INNER, EXPERTS),
        "ffn_up_exps": (INNER, EXPERTS), "ffn_down_exps": (WIDTH, EXPERTS),
    }  # fmt: skip
    biases = {f"{name}.bias": size for name, size in sizes.items()}
    biases |= {name: size for name, size in _qwen2().items() if name.endswith("bias")}
    return (
        _attention() | _experts() | biases
        | _weights(post_attention_norm=(WIDTH,), attn_sinks=(HEADS,))
    )  # fmt: skip


SSM = {"conv_kernel": 4, "inner_size": 2 * WIDTH, "state_size": 16, "time_step_rank": 20}


def _mamba() -> Shapes:
    inner, state, rank = SSM["inner_size"], SSM["state_size"], SSM["time_step_rank"]
    return {
        **_weights(
            attn_norm=(WIDTH,), ssm_in=(WIDTH, 2 * inner), ssm_conv1d=(SSM["conv_kernel"], inner),
            ssm_x=(inner, rank + 2 * state), ssm_dt=(rank, inner), ssm_out=(inner, WIDTH),
        ),
        "ssm_conv1d.bias": (inner,), "ssm_dt.bias": (inner,), "ssm_a": (state, inner),
        "ssm_d": (inner,),
    }  # fmt: skip


def _falcon_h1() -> Shapes:
    inner, state, heads = SSM["inner_size"], SSM["state_size"], SSM["time_step_rank"]
    convolved = inner + 2 * state
    shapes = _llama()
    shapes["ffn_norm"] = shapes.pop("ffn_norm.weight")  # llama.cpp reads it without the ending
    return {
        **shapes,
        **_weights(
            ssm_in=(WIDTH, 2 * inner + 2 * state + heads),
            ssm_conv1d=(SSM["conv_kernel"], convolved), ssm_out=(inner, WIDTH),
        ),
        "ssm_conv1d.bias": (convolved,), "ssm_dt.bias": (heads,), "ssm_a": (1, heads),
        "ssm_d": (1, heads),
    }  # fmt: skip


def _rwkv6() -> Shapes:
    mix, decay = 32, 64
    square = {f"time_mix_{name}": (WIDTH, WIDTH)
              for name in ("key", "value", "receptance", "gate", "output")}  # fmt: skip
    lerps = {f"time_mix_lerp_{name}": (WIDTH, 1, 1) for name in ("x", "w", "k", "v", "r", "g")}
    lerps |= {f"channel_mix_lerp_{name}": (WIDTH, 1, 1) for name in ("k", "r")}
    norms = {f"{name}.{part}": (WIDTH,) for name in ("attn_norm", "attn_norm_2", "time_mix_ln")
             for part in ("weight", "bias")}  # fmt: skip
    return norms | _weights(
        **square, **lerps,
        time_mix_w1=(WIDTH, 5 * mix), time_mix_w2=(mix, WIDTH, 5),
        time_mix_first=(HEAD, WIDTH // HEAD), time_mix_decay=(WIDTH,),
        time_mix_decay_w1=(WIDTH, decay), time_mix_decay_w2=(decay, WIDTH),
        channel_mix_key=(WIDTH, INNER), channel_mix_value=(INNER, WIDTH),
        channel_mix_receptance=(WIDTH, WIDTH),
    )  # fmt: skip


_ATTENTION: Mapping[str, object] = {
    "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
    "attention.key_length": HEAD, "attention.value_length": HEAD,
    "attention.layer_norm_rms_epsilon": 1e-5, "feed_forward_length": INNER,
    "rope.dimension_count": HEAD,
}  # fmt: skip
_WINDOW: Mapping[str, object] = {"attention.sliding_window": 512}
_EXPERTS: Mapping[str, object] = {
    "expert_count": EXPERTS, "expert_used_count": 2, "expert_feed_forward_length": INNER,
}  # fmt: skip
_SSM: Mapping[str, object] = {f"ssm.{name}": value for name, value in SSM.items()}

ARCHITECTURES: Mapping[str, tuple[Mapping[str, object], Callable[[], Shapes]]] = {
    "llama": (_ATTENTION, _llama),
    "qwen2": (_ATTENTION, _qwen2),
    "qwen3": (_ATTENTION, _qwen3),
    "gemma3": ({**_ATTENTION, **_WINDOW}, _gemma3),
    "phi3": (_ATTENTION, _phi3),
    "qwen3moe": ({**_ATTENTION, **_EXPERTS}, _qwen3moe),
    "gpt-oss": ({**_ATTENTION, **_WINDOW, **_EXPERTS}, _gpt_oss),
    "mamba": ({**_SSM, "attention.layer_norm_rms_epsilon": 1e-5}, _mamba),
    "falcon-h1": ({**_ATTENTION, **_SSM, "ssm.group_count": 1}, _falcon_h1),
    "rwkv6": (
        {
            "attention.layer_norm_epsilon": 1e-5, "feed_forward_length": INNER,
            "wkv.head_size": HEAD, "time_mix_extra_dim": 32, "time_decay_extra_dim": 64,
            "rescale_every_n_layers": 6, "attention.head_count": 0,
        },
        _rwkv6,
    ),
}  # fmt: skip
"""Architecture -> its metadata and the tensors of one layer."""
