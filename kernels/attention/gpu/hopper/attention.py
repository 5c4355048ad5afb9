"""Attention on NVIDIA Hopper GPUs: Pallas kernels for Mosaic GPU, forward and backward.

A program is three warpgroups (128 threads each). One loads blocks of memory by TMA and hardly needs registers. Two
compute, each 64 rows of the program's 128, on the tensor cores by wgmma, which works by itself while a warpgroup does
other things. So things overlap. In the forward pass the two take turns (`turn`): while one's products run, the other
takes exponentials; and each warpgroup starts the scores of the next block before the values of this one, so that its
own exponentials too run beside a product. Blocks that aren't visible are never loaded, those that are wholly visible
aren't masked (kernels/attention/shared/bounds.py).

As in Triton, there are three kernels: forward; the gradients of keys and values, a program for each block of keys,
which sums over the query heads that share them; the gradient of queries, a program for each block of queries. The last
two each compute the scores once: seven products instead of five, but every sum has one order, so gradients are the same
to the bit in every run. Above head size 160 the sums of both gradients don't fit in the registers, and keys and values
are two kernels: eight products.

Head sizes are multiples of 16 and aren't padded: rows lie in shared memory in pieces of 64, 32 or 16 columns, whichever
divides the head size (160 = 5 * 32), and wgmma takes any such width. Rows are padded to whole blocks: a copy, if the
length isn't a multiple of 128.

What keeps products and exponentials side by side shows in the machine code alone: look there after any change, with
tests/benchmarks/attention_gpu_compiled.py (tests/benchmarks/LOG.md says what was found).

Shapes: B rows, H query heads, K key heads, G = H/K, S queries, T keys, D head size; N blocks of queries, M of keys.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from opencoder_jax.kernels.attention.gpu.blocks import GpuBlocks, HopperRing
from opencoder_jax.kernels.attention.gpu.hopper.backward import backward
from opencoder_jax.kernels.attention.gpu.hopper.forward import forward
from opencoder_jax.kernels.attention.gpu.hopper.warpgroups import TILE
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
    blocks: GpuBlocks[HopperRing],
    interpret: Any = None,
) -> Float[Array, "B S H D"]:
    """See `attention.attention`; differentiable in q, k and v. For one device (under a mesh: in a shard_map).

    Args:
        q: as k and v bfloat16 or float16, of a head size that is a multiple of 16, 256 at most.
        blocks: block sizes.
        interpret: runs the kernels in Mosaic GPU's interpreter, on any platform, to test them.
    """
    length = q.shape[1]
    # No query that is asked for sees what is added, and the gradients of that are dropped.
    bounds = jnp.pad(bounds_of(positions, slot), ((0, 0), (0, 0), (0, -length % TILE)), mode="edge")
    q, k, v = (jnp.pad(x, ((0, 0), (0, -x.shape[1] % TILE), (0, 0), (0, 0))) for x in (q, k, v))
    return _attention(blocks, interpret, q, k, v, bounds)[:, :length]
