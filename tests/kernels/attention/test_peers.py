"""Others' kernels, which ours are measured beside, compute the same: so their times can be compared."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opencoder_jax.kernels.attention import reference
from tests.benchmarks.attention_gpu import jax_triton
from tests.benchmarks.attention_programs import splash_of
from tests.kernels.attention.test_attention import packed, qkv


def splash(q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> jax.Array:
    """Of all rows and key heads."""
    rows, length, heads, size = q.shape
    group = heads // k.shape[2]
    call = splash_of(length, group, size, interpret=True)
    q = (q * size**-0.5).reshape(rows, length, -1, group, size).transpose(0, 2, 3, 1, 4)
    k, v = (x.swapaxes(1, 2) for x in (k, v))
    documents = jnp.cumsum(positions == 0, axis=1, dtype=jnp.int32)
    out = jax.vmap(jax.vmap(call, (0, 0, 0, None)))(q, k, v, documents)
    return out.transpose(0, 3, 1, 2, 4).reshape(rows, length, heads, size)


def triton(q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> jax.Array:
    """Of rows that are one document each."""
    return jax_triton(q, k, v, interpret=True)


@pytest.mark.parametrize(
    ("kernel", "positions"),
    [
        pytest.param(triton, packed([256], [256]), marks=pytest.mark.slow),
        pytest.param(splash, packed([100, 156], [256]), marks=pytest.mark.slow),
    ],
)
def test_they_equal_the_formula_and_its_gradients(kernel: Callable[..., jax.Array], positions: np.ndarray) -> None:
    q, k, v = (jnp.asarray(x) for x in qkv(2, 256, 4, 2, 128))
    mix = np.random.default_rng(1).standard_normal(q.shape)

    def with_gradients(kernel: Callable[..., jax.Array]) -> tuple[jax.Array, ...]:
        out, back = jax.vjp(lambda *x: kernel(*x, jnp.asarray(positions)), q, k, v)
        return out, *back(jnp.asarray(mix, out.dtype))

    for one, other in zip(with_gradients(kernel), with_gradients(reference.attention), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
