"""A decoder's layers over a cache by our kernels for CPUs, as one call: between many small ones, threads would wait."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from opencoder_jax.kernels.attention.cpu.packed import TILE, PackedLayer


def takes(size: int, dtype: Any) -> bool:
    """Whether the kernels are made for heads of this size in a cache of this dtype."""
    return size % TILE == 0 and jnp.dtype(dtype) in (jnp.float32, jnp.bfloat16)


def run_layers(
    x: Float[Array, "N W"],
    angles: Float[Array, "N half"],
    layers: Sequence[PackedLayer],
    final_norm: Float[Array, " W"],
    cache: tuple[Sequence[Array], Sequence[Array]],
    before: Int[Array, " B"],
    count: Int[Array, " B"],
    row: Int[Array, ""],
    alike: tuple[Int[Array, " B"], Int[Array, " B"]],
    heads: int,
    eps: float,
    wanted: bool,
) -> tuple[Float[Array, "N W"], tuple[Array, ...], tuple[Array, ...]]:
    """Reads S = N / B more tokens of B rows of the cache, in place: the caller must donate it, or it's copied.

    Args:
        x: the embedding's rows.
        angles: by which queries and keys are turned.
        cache: each layer's keys and values, [R, K, T, D] each. T is a multiple of 16, of which the keys lie in tiles:
            [R, K, T / 16, D, 16] is how the kernels see them.
        before, count: as `extend` in model/decoding.py has them.
        row: of the cache, the first of the B rows.
        alike: of each row another (or itself) that holds the same tokens in its first slots, and in how many: most
            are read there.
        wanted: whether the result is; otherwise it means nothing, and costs less.

    Returns:
        The final-normed stream, in float32, and the cache's keys and values.
    """
    weights = [
        each
        for layer in layers
        for each in (
            layer.attention_norm,
            *(layer.heads.numbers, layer.heads.scales, layer.output.numbers, layer.output.scales),
            layer.ffn_norm,
            *(layer.gated.numbers, layer.gated.scales, layer.down.numbers, layer.down.scales),
        )
    ]
    first = (x.astype(jnp.float32), jnp.cos(angles), jnp.sin(angles), before, count, row[None], *alike, final_norm)
    both = [*cache[0], *cache[1]]
    at = len(first) + len(weights)
    out = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in (first[0], *both)]
    call = jax.ffi.ffi_call(
        "opencoder_layers", out, input_output_aliases={at + index: 1 + index for index in range(len(both))}
    )
    hidden, *both = call(*first, *weights, *both, heads=np.int64(heads), eps=np.float32(eps), wanted=wanted)
    return hidden, tuple(both[: len(layers)]), tuple(both[len(layers) :])
