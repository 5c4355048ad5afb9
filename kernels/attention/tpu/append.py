"""Writing new tokens' keys or values into a cache, on TPUs: a Pallas kernel that touches the slots' own tiles alone.

XLA's scatter wants the cache laid out otherwise than the kernels that read it, and copies all of it there and back in
each step of an engine.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

TILE_BYTES = 32  # of a tile's second axis, so many slots of a number's size


def append(
    cache: Float[Array, "R K T D"],
    new: Float[Array, "R S K D"],
    before: Int[Array, " R"],
    count: Int[Array, " R"],
    *,
    interpret: bool = False,
) -> Float[Array, "R K T D"]:
    """See `cached.append`. For one device; S is small: each new token is a pass over its tile.

    Args:
        interpret: runs the kernel as plain XLA, on any platform, to test it.
    """
    rows, kv_heads, slots, size = cache.shape
    length = new.shape[1]
    tile = min(slots, TILE_BYTES // cache.dtype.itemsize)  # slots of a tile
    last = -(-slots // tile) - 1
    bounds = jnp.stack((before, count), axis=1).reshape(-1).astype(jnp.int32)

    def block(b: Any, i: Any, bounds: Any) -> Any:
        return jnp.minimum(jax.lax.div(bounds[2 * b], tile) + i, last)

    def tile_of(b: Any, i: Any, bounds: Any) -> tuple[Any, ...]:
        return b, 0, block(b, i, bounds), 0

    def kernel(bounds: Any, new_ref: Any, cache_ref: Any, out_ref: Any) -> None:
        b, i = pl.program_id(0), pl.program_id(1)
        start, kept = bounds[2 * b], bounds[2 * b + 1]
        place = jax.lax.broadcasted_iota(jnp.int32, (kv_heads, tile, size), 1) + block(b, i, bounds) * tile - start
        result = cache_ref[0].astype(jnp.float32)
        for token in range(length):
            result = jnp.where((place == token) & (token < kept), new_ref[0, :, token : token + 1, :], result)
        out_ref[0] = result.astype(out_ref.dtype)

    of_tile = pl.BlockSpec((1, kv_heads, tile, size), tile_of)
    return pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            # Tokens that begin at a tile's end go on in the next; behind the cache's last tile that one comes again.
            grid=(rows, 1 + -(-(length - 1) // tile)),
            in_specs=[pl.BlockSpec((1, kv_heads, length, size), lambda b, i, _: (b, 0, 0, 0)), of_tile],
            out_specs=of_tile,
        ),
        out_shape=jax.ShapeDtypeStruct(cache.shape, cache.dtype),
        input_output_aliases={2: 0},
        name="attention_append",
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
    )(bounds, new.swapaxes(1, 2).astype(jnp.float32), cache)
