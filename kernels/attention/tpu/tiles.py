"""What the TPU kernels share: tiles of 128 lanes, matrix products, and what a kernel tells the compilers of itself."""

import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

LANES = 128
MIB = 2**20
# The running maximum before the first score, far below any score but a masked one.
FIRST_MAXIMUM = -1e38


def padded(size: int) -> int:
    """The size as it lies in memory along lanes: the next multiple of 128."""
    return -(-size // LANES) * LANES


def dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """A matrix product in float32: axis `contract[0]` of `a` with axis `contract[1]` of `b`."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)


def lanes(x: Float[Array, "R 128"], width: int) -> Float[Array, "R {width}"]:
    """More or fewer lanes of an array whose lanes are all equal."""
    copies = [x] * (width // LANES) + ([x[:, : width % LANES]] if width % LANES else [])
    return jnp.concatenate(copies, axis=1) if len(copies) > 1 else copies[0]


def compiler_params(resident: int, vmem: int) -> pltpu.CompilerParams:
    """Limits a kernel's share of `vmem` MiB: its blocks take `resident` bytes, the compiler's temporaries more."""
    limit = min(vmem * MIB * 15 // 16, max(resident * 3 // 2, resident + 12 * MIB))
    return pltpu.CompilerParams(
        dimension_semantics=("parallel", "parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=limit
    )


def cost(q: Array, k: Array, slots: int, products: int) -> pl.CostEstimate:
    """What XLA's scheduler plans with: a row of one document, in which a query sees half of the keys."""
    pairs = math.prod(q.shape[:2]) * q.shape[3] * slots // 2
    moved = (2 * q.size * q.dtype.itemsize + 2 * k.size * k.dtype.itemsize) * (products + 1) // 3
    return pl.CostEstimate(flops=2 * products * pairs * q.shape[2], transcendentals=pairs, bytes_accessed=moved)
