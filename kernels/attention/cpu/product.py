"""Products of some rows with a matrix that lies as our kernel for CPUs reads it."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

PANEL = 32  # columns that lie together, as kernels.cc has it


@partial(jax.tree_util.register_dataclass, data_fields=["numbers"], meta_fields=["width"])
@dataclass(frozen=True)
class Panels:
    """A matrix [K, N] of float32, bfloat16 or int8.

    Attributes:
        numbers: column n is numbers[n // 32, :, n % 32]; behind the last one are zeros.
        width: N.
    """

    numbers: Num[Array, "P K 32"]
    width: int


@jax.jit
def in_panels(matrix: Num[Array, "K N"]) -> Panels:
    """Lays a matrix out anew."""
    depth, width = matrix.shape
    padded = jnp.pad(matrix, ((0, 0), (0, -width % PANEL)))
    return Panels(padded.reshape(depth, -1, PANEL).swapaxes(0, 1), width)


def product(rows: Float[Array, "M K"], matrix: Panels, kept: Bool[Array, " M"] | None = None) -> Float[Array, "M N"]:
    """The rows times a matrix, in float32, and 0 in rows that aren't kept: they cost nothing."""
    kept = jnp.ones(len(rows), bool) if kept is None else kept
    out = jax.ShapeDtypeStruct((len(rows), matrix.width), jnp.float32)
    return jax.ffi.ffi_call("opencoder_product", out)(rows.astype(jnp.float32), matrix.numbers, kept)
