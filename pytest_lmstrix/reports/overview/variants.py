"""The variants of a model by load settings in one table."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_lmstrix.core.formatting import file_size, rate, seconds, tokens
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.table import Paint, TableCell, table
from pytest_lmstrix.registry.status import Variant, VariantComparison

VARIANT_HEADINGS = ("variant", "estimate", "peak", "verified", "status", "TTFT", "tokens/s")
STATUS_STYLES = {
    "completed": "green", "failed": "red", "missing": "yellow", "corrupted": "yellow",
}  # fmt: skip


def variants_table(
    comparison: VariantComparison, *, width: int | None, paint: Paint
) -> Iterator[str]:
    """Yield the lines of a table that compares the variants of a model, after its name."""
    yield f"variants of {one_line(comparison.model)}"
    yield from table(
        VARIANT_HEADINGS,
        [variant_cells(each) for each in comparison.variants],
        paint=paint,
        width=width,
        left=("status",),
        expendable=("TTFT", "status", "peak"),
    )


def variant_cells(variant: Variant) -> list[TableCell]:
    """Return the cells below `VARIANT_HEADINGS`."""
    return [
        variant.name,
        file_size(variant.estimated_memory_bytes),
        file_size(variant.peak_memory_bytes),
        tokens(variant.verified_context),
        (variant.status, STATUS_STYLES.get(variant.status, "")),
        seconds(variant.ttft_seconds),
        rate(variant.decode_tokens_per_second),
    ]
