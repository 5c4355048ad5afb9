"""Attention over a cache by our kernel for CPUs, which writes what is new into the cache, too."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

TILE = 16  # numbers of a head that are taken at once, as kernels.cc has it


def takes(size: int, dtype: Any) -> bool:
    """Whether the kernel is made for heads of this size in a cache of this dtype."""
    return size % TILE == 0 and jnp.dtype(dtype) in (jnp.float32, jnp.bfloat16)


def append_and_attend(
    q: Float[Array, "B S H D"],
    k: Float[Array, "B S K D"],
    v: Float[Array, "B S K D"],
    keys: Float[Array, "R K T D"],
    values: Float[Array, "R K T D"],
    before: Int[Array, " B"],
    count: Int[Array, " B"],
    row: Int[Array, ""] | None,
) -> tuple[Float[Array, "B S H D"], Array, Array]:
    """What cached.py says of its function of this name."""
    q, k, v = (each.astype(keys.dtype) for each in (q, k, v))
    of_row = jnp.zeros(1, jnp.int32) if row is None else row[None]
    like = tuple(jax.ShapeDtypeStruct(each.shape, each.dtype) for each in (q, keys, values))
    call = jax.ffi.ffi_call("opencoder_attention", like, input_output_aliases={6: 1, 7: 2})
    out, keys, values = call(q, k, v, before, count, of_row, keys, values)
    return out, keys, values
