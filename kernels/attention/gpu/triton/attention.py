"""Attention on NVIDIA GPUs from Ampere on: Pallas kernels for Triton, forward and backward.

A query sees the keys from where its document starts to its own (`first` to `last`). So a block of queries and a block
of keys are one of three things, and each costs what it must:

    not visible    skipped: each program loops over ranges of blocks that are computed beforehand
    all visible    no mask and no test for the end of the row: matrix products and exponentials
    at an edge     the same, masked: the diagonal, where documents begin inside a block, the end of the row

Three kernels: the forward pass; the gradients of keys and values, a program for each block of keys, which sums over the
query heads that share them; the gradient of queries, a program for each block of queries. The last two each compute the
scores once: seven products instead of five with sums in memory, but no sum's order changes from run to run.

Triton's blocks are powers of two. A head size that isn't one is taken in pieces that are (160 = 128 + 32), so it costs
160 columns and not 256. Exponents are base 2, in float32. Arrays stay as the model has them, [B, S, H, D].

Shapes: B rows, H query heads, K key heads, G = H/K, S queries, T keys, D head size; N blocks of queries, M of keys.
"""

from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from opencoder_jax.kernels.attention.gpu.blocks import GpuBlocks, TritonBlock
from opencoder_jax.kernels.attention.gpu.triton.backward import backward
from opencoder_jax.kernels.attention.gpu.triton.forward import forward
from opencoder_jax.kernels.attention.gpu.triton.tiles import SMALLEST
from opencoder_jax.kernels.attention.shared.bounds import bounds_of
from opencoder_jax.kernels.attention.shared.gradients import differentiable

_attention = differentiable(forward, backward, head_axis=3)


def attention(
    q: Float[Array, "B S H D"],
    k: Float[Array, "B T K D"],
    v: Float[Array, "B T K D"],
    positions: Int[Array, "B S"],
    slot: int | Int[Array, ""] = 0,
    *,
    blocks: GpuBlocks[TritonBlock],
    interpret: bool = False,
) -> Float[Array, "B S H D"]:
    """See `attention.attention`; differentiable in q, k and v. For one device (under a mesh: in a shard_map).

    Args:
        q: as k and v of a head size that is a multiple of 16.
        blocks: block sizes, cut down here to what the row needs.
        interpret: runs the kernels as plain XLA, on any platform, to test them.
    """
    queries, keys = (max(SMALLEST, pl.next_power_of_2(x.shape[1])) for x in (q, k))
    blocks = GpuBlocks(*(b._replace(queries=min(b.queries, queries), keys=min(b.keys, keys)) for b in blocks))
    return _attention(blocks, interpret, q, k, v, bounds_of(positions, slot))
