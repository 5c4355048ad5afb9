"""cuDNN's attention and jax's own kernels behind one signature: to hold ours against, and to choose by name.

    cudnn       as jax.nn offers it; it can't tell documents apart, so it wants rows of one each
    jax_triton  jax.experimental.pallas.ops.gpu.attention, for Triton
    jax_splash  jax.experimental.pallas.ops.tpu.splash_attention, for Mosaic

None of them goes on from a cache: there are as many keys as queries, from slot 0 on. The last two mask other documents
and skip none of their blocks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:  # so that the GPU kernels' benchmark runs where nothing is installed but JAX's own family
    from jaxtyping import Array, Float, Int

BLOCK, COMPUTE = 1024, 512  # splash's: queries and keys at once, and keys of them in one product
LANES = 128


def cudnn(q: Float[Array, "B S H D"], k: Float[Array, "B S K D"], v: Float[Array, "B S K D"]) -> Array:
    """cuDNN's, causal, a document a row."""
    return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")


def jax_triton(
    q: Float[Array, "B S H D"],
    k: Float[Array, "B S K D"],
    v: Float[Array, "B S K D"],
    positions: Int[Array, "B S"] | None,
    *,
    interpret: bool = False,
) -> Float[Array, "B S H D"]:
    """Jax's kernel with its default blocks, or smaller where those don't fit; keys are copied for each query head.

    Raises:
        ValueError: S is no multiple of the blocks.
    """
    from jax.experimental.pallas.ops.gpu import attention as module

    group = q.shape[2] // k.shape[2]
    k, v = (jnp.repeat(x, group, axis=2) for x in (k, v))
    sizes = module.BlockSizes.get_default()
    if q.shape[3] > LANES:
        sizes = dataclasses.replace(sizes, block_q=64, block_k=32)
    documents = None if positions is None else documents_of(positions)
    scale = 1 / math.sqrt(q.shape[3])
    return module.mha(q, k, v, documents, scale, causal=True, block_sizes=sizes, interpret=interpret)


def jax_splash(
    q: Float[Array, "B S H D"],
    k: Float[Array, "B S K D"],
    v: Float[Array, "B S K D"],
    positions: Int[Array, "B S"],
    *,
    interpret: bool = False,
) -> Float[Array, "B S H D"]:
    """Jax's splash attention; its backward pass is one kernel where D is a multiple of 128, else two.

    Raises:
        ValueError: S is no multiple of 128.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as module

    rows, length, heads, size = q.shape
    group = heads // k.shape[2]
    call = splash_of(length, group, size, interpret)
    scaled = (q.astype(jnp.float32) / math.sqrt(size)).astype(q.dtype)
    q = scaled.reshape(rows, length, -1, group, size).transpose(0, 2, 3, 1, 4)
    k, v = (x.swapaxes(1, 2) for x in (k, v))

    def of_row(q: Array, k: Array, v: Array, documents: Array) -> Array:
        return jax.vmap(call, (0, 0, 0, None))(q, k, v, module.SegmentIds(documents, documents))

    out = jax.vmap(of_row)(q, k, v, documents_of(positions))
    return out.transpose(0, 3, 1, 2, 4).reshape(rows, length, heads, size)


def splash_of(length: int, group: int, size: int, interpret: bool = False) -> Callable[..., jax.Array]:
    """Splash attention of `group` query heads on one key head's keys: (q [G, S, D], k, v [S, D], SegmentIds)."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as module
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    block = math.gcd(length, BLOCK)
    if block % LANES:
        raise ValueError(f"attention: jax_splash wants rows of a multiple of {LANES} tokens, not {length}")
    fused = size % LANES == 0
    compute = min(block, COMPUTE)
    sizes = module.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=compute,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=compute,
        block_q_dq=None if fused else block,
        block_kv_dq=None if fused else block,
        use_fused_bwd_kernel=fused,
    )
    mask = masks.MultiHeadMask([masks.CausalMask((length, length)) for _ in range(group)])
    return module.make_splash_mqa(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret)


def documents_of(positions: Int[Array, "B S"]) -> Int[Array, "B S"]:
    """A number for each document of a row, the same for all its tokens."""
    return jnp.cumsum(positions == 0, axis=1, dtype=jnp.int32)
