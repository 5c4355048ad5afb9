"""A decoder's matrices as our kernels for CPUs read them, and products with one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

TILE = 16  # columns that lie together, as numbers.h has it


@partial(jax.tree_util.register_dataclass, data_fields=["numbers", "scales"], meta_fields=["width"])
@dataclass(frozen=True)
class Panels:
    """A matrix [K, N] of float32, bfloat16 or int8.

    Attributes:
        numbers: column n is numbers[n // 16, :, n % 16]; behind the last one are zeros.
        scales: what the columns are multiplied by, or none.
        width: N.
    """

    numbers: Num[Array, "P K 16"]
    scales: Float[Array, " columns"]
    width: int


class PackedLayer(NamedTuple):
    """One layer's weights. W, H, K, D and F as in model/decoder.py."""

    attention_norm: Float[Array, " W"]
    heads: Panels  # of queries, keys and values: [W, (H + 2K) * D]
    output: Panels
    ffn_norm: Float[Array, " W"]
    gated: Panels  # 16 columns of the gate and 16 of what it gates by turns: [W, 2F], with zeros behind F % 16 of each
    down: Panels


@jax.jit
def in_panels(matrix: Num[Array, "K N"], scales: Float[Array, " N"] | None = None) -> Panels:
    """Lays a matrix out anew."""
    depth, width = matrix.shape
    tiles = _whole_tiles(matrix).reshape(depth, -1, TILE).swapaxes(0, 1)
    return Panels(tiles, jnp.zeros(0) if scales is None else _whole_tiles(scales), width)


@jax.jit
def side_by_side(*matrices: Panels) -> Panels:
    """Matrices one behind the other, each with its zeros."""
    numbers, scales = (jnp.concatenate(all_) for all_ in _parts(matrices))
    return Panels(numbers, scales, len(numbers) * TILE)


@jax.jit
def by_turns(one: Panels, other: Panels) -> Panels:
    """16 columns of one matrix, 16 of another, and so on."""
    numbers, scales = _parts((one, other))
    depth = numbers[0].shape[1]
    both = jnp.stack([each.reshape(-1, TILE) for each in scales], axis=1).reshape(-1)
    return Panels(jnp.stack(numbers, axis=1).reshape(-1, depth, TILE), both, 2 * len(numbers[0]) * TILE)


def _parts(matrices: Sequence[Panels]) -> tuple[list[Array], list[Array]]:
    return [each.numbers for each in matrices], [each.scales for each in matrices]


def _whole_tiles(x: Array) -> Array:
    return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, -x.shape[-1] % TILE),))


def product(rows: Float[Array, "M K"], matrix: Panels, kept: Bool[Array, " M"] | None = None) -> Float[Array, "M N"]:
    """The rows times a matrix, in float32, and 0 in rows that aren't kept: they cost nothing."""
    kept = jnp.ones(len(rows), bool) if kept is None else kept
    out = jax.ShapeDtypeStruct((len(rows), matrix.width), jnp.float32)
    call = jax.ffi.ffi_call("opencoder_product", out)
    return call(rows.astype(jnp.float32), matrix.numbers, matrix.scales, kept)
