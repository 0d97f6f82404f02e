"""GGUF files of any size that are all header: sparse files, which take next to no disk space."""

from __future__ import annotations

from pathlib import Path

import gguf

_Q4_0_BLOCK, _Q4_0_BLOCK_BYTES = 32, 18


def write_llama(
    path: Path,
    *,
    layers: int,
    width: int,
    inner: int,
    heads: int,
    kv_heads: int,
    vocabulary: int = 32_000,
    context_length: int = 131_072,
    most_tensors: int = 0,
) -> Path:
    """Write the header of a Llama with weights in Q4_0, and give the file its full length.

    With `most_tensors`, several files with at most so many each; the first is returned.
    """
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=most_tensors)
    writer.add_context_length(context_length)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_tokenizer_model("no_vocab")
    kv_width = width // heads * kv_heads
    layer = {
        "attn_norm": (width,), "ffn_norm": (width,), "attn_q": (width, width),
        "attn_k": (kv_width, width), "attn_v": (kv_width, width), "attn_output": (width, width),
        "ffn_gate": (inner, width), "ffn_up": (inner, width), "ffn_down": (width, inner),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        f"blk.{number}.{name}.weight": shape
        for number in range(layers)
        for name, shape in layer.items()
    }
    shapes |= {"token_embd.weight": (vocabulary, width), "output.weight": (vocabulary, width)}
    shapes["output_norm.weight"] = (width,)
    for name, shape in shapes.items():
        _add(writer, name, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    files = writer.format_shard_names(path)
    ends = [sum(-(-each.nbytes // 32) * 32 for each in part.values()) for part in writer.tensors]
    writer.close()
    for each, end in zip(files, ends, strict=True):
        with each.open("rb+") as file:
            file.truncate(-(-each.stat().st_size // 32) * 32 + end)
    return files[0]


def write_llama_70b(path: Path) -> Path:
    """A Llama of 70 billion parameters: 37 GiB of weights."""
    return write_llama(path, layers=80, width=8192, inner=28_672, heads=64, kv_heads=8,
                       vocabulary=128_256)  # fmt: skip


def write_split_llama_70b(path: Path) -> Path:
    """The same in ten files."""
    return write_llama(path, layers=80, width=8192, inner=28_672, heads=64, kv_heads=8,
                       vocabulary=128_256, most_tensors=73)  # fmt: skip


def write_huge_llama(path: Path) -> Path:
    """A Llama with more weights than any machine that runs tests has memory: 800 GiB."""
    return write_llama(path, layers=500, width=16_384, inner=53_248, heads=128, kv_heads=8)


def write_tiny_llama(path: Path) -> Path:
    """A Llama of less than a megabyte."""
    return write_llama(path, layers=2, width=128, inner=256, heads=4, kv_heads=2,
                       vocabulary=256, context_length=4096)  # fmt: skip


def _add(writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...]) -> None:
    import numpy

    values = 1
    for side in shape:
        values *= side
    if len(shape) == 1:
        writer.add_tensor_info(name, shape, numpy.dtype("float32"), values * 4)
        return
    writer.add_tensor_info(
        name,
        (*shape[:-1], shape[-1] // _Q4_0_BLOCK * _Q4_0_BLOCK_BYTES),
        numpy.dtype("uint8"),
        values // _Q4_0_BLOCK * _Q4_0_BLOCK_BYTES,
        raw_dtype=gguf.GGMLQuantizationType.Q4_0,
    )
