"""What the Triton kernels share: tiles in memory and in registers, loops over blocks, and the call."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array

from opencoder_jax.kernels.attention.gpu.blocks import TritonBlock

SMALLEST = 16  # side of a matrix product in Triton


def pieces(size: int) -> list[tuple[int, int]]:
    """Start and size of the powers of two, largest first, that a head size is the sum of."""
    return [(size & ~(2 * bit - 1), bit) for bit in (256, 128, 64, 32, 16) if size & bit]


def ragged(length: int, block: int) -> int | None:
    """The end to test for, if blocks of this size reach past it."""
    return length if length % block else None


def inside(start: Any, count: int, end: int | None, matrix: bool) -> Array | None:
    """Which rows lie before the end, for a matrix or for numbers."""
    if end is None:
        return None
    before_end = start + jnp.arange(count) < end
    return before_end[:, None] if matrix else before_end


def load(ref: Any, start: Any, count: int, end: int | None, *head: Any) -> list[Array]:
    """Rows start to start + count of [rows, (heads,) D], in pieces of D; rows from `end` on, if any, are zero."""
    mask = inside(start, count, end, matrix=True)
    refs = [ref.at[(pl.ds(start, count), *head, pl.ds(*piece))] for piece in pieces(ref.shape[-1])]
    return [triton.load(piece, mask=mask, other=None if end is None else 0) for piece in refs]


def load_numbers(ref: Any, start: Any, count: int, end: int | None, *head: Any) -> Array:
    """The same of [(heads,) rows]."""
    mask = inside(start, count, end, matrix=False)
    return triton.load(ref.at[(*head, pl.ds(start, count))], mask=mask, other=None if end is None else 0)


def store(ref: Any, start: Any, parts: Sequence[Array], end: int | None) -> None:
    """Writes rows from `start` on, but none from `end` on."""
    mask = inside(start, len(parts[0]), end, matrix=True)
    for piece, part in zip(pieces(ref.shape[-1]), parts, strict=True):
        triton.store(ref.at[pl.ds(start, len(part)), pl.ds(*piece)], part.astype(ref.dtype), mask=mask)


def dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """A matrix product in float32; float32 operands aren't rounded to TF32."""
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, precision="highest", preferred_element_type=jnp.float32)


def products_of_rows(a: list[Array], b: list[Array]) -> Array:
    """The dot product of each row of one matrix with each row of another; both come in pieces of columns."""
    return functools.reduce(jnp.add, (dot(x, y, (1, 1)) for x, y in zip(a, b, strict=True)))


def add_products(sums: tuple[Array, ...], weights: Array, parts: list[Array]) -> tuple[Array, ...]:
    """Adds weights @ parts to sums, in pieces of columns."""
    weights = weights.astype(parts[0].dtype)
    return tuple(total + dot(weights, part, (1, 0)) for total, part in zip(sums, parts, strict=True))


def zeros(count: int, size: int) -> tuple[Array, ...]:
    """Sums to start from, in pieces of columns."""
    return tuple(jnp.zeros((count, width), jnp.float32) for _, width in pieces(size))


def over_blocks(ranges: Any, step: Callable[[Any, Any, bool], Any], carry: Any) -> Any:
    """Calls step(block, carry, masked) on the blocks that need no mask, then on the masked ones on either side."""
    begin, full_begin, full_end, end = (ranges[i] for i in range(4))
    carry = jax.lax.fori_loop(full_begin, full_end, lambda i, carry: step(i, carry, False), carry)
    gap = full_end - full_begin

    def masked(i: Any, carry: Any) -> Any:
        return step(jnp.where(i < full_begin, i, i + gap), carry, True)

    return jax.lax.fori_loop(begin, end - gap, masked, carry)


def per_head(array: Any, group: int = 1) -> pl.BlockSpec:
    """The row [S, D] of a query head (group 1) or of the key head that it uses, of [B, S, H, D]."""
    return pl.BlockSpec((None, array.shape[1], None, array.shape[3]), lambda h, i, b: (b, 0, jax.lax.div(h, group), 0))


def numbers_per_head(length: int) -> pl.BlockSpec:
    """The numbers [S] of a query head, of [B, H, S]."""
    return pl.BlockSpec((None, None, length), lambda h, i, b: (b, h, 0))


def call(
    kernel: Callable[..., None],
    name: str,
    block: TritonBlock,
    interpret: bool,
    heads: int,
    ranges: Array,
    bounds: Array,
    inputs: Sequence[tuple[Array, pl.BlockSpec]],
    outputs: Sequence[tuple[jax.ShapeDtypeStruct, pl.BlockSpec]],
    last_first: bool = False,
) -> list[Array]:
    """Runs a kernel over heads, blocks and rows; it also gets its ranges and the first and last keys of all queries.

    Args:
        last_first: the last blocks start first.
    """
    rows, count, _ = ranges.shape
    of_ranges = pl.BlockSpec((None, None, 4), lambda h, i, b: (b, count - 1 - i if last_first else i, 0))
    first, last = (
        pl.BlockSpec((None, None, bounds.shape[2]), lambda h, i, b, which=which: (b, which, 0)) for which in range(2)
    )
    return pl.pallas_call(
        functools.partial(kernel, block=block),
        grid=(heads, count, rows),  # all heads of a block before the next block
        in_specs=[of_ranges, first, last, *(spec for _, spec in inputs)],
        out_specs=[spec for _, spec in outputs],
        out_shape=[shape for shape, _ in outputs],
        name=name,
        compiler_params=triton.CompilerParams(num_warps=block.warps, num_stages=block.stages),
        interpret=interpret,
    )(ranges, bounds, bounds, *(array for array, _ in inputs))
