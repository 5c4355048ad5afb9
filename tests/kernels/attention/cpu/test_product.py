"""Products by our kernel for CPUs: right, and of each row the same bits whatever the others are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.kernels.attention.cpu.packed import by_turns, in_panels, product, side_by_side
from opencoder_jax.kernels.attention.rows import cpu_kernels

pytestmark = pytest.mark.skipif(not cpu_kernels(), reason="no C++ compiler, or no CPU")
multiplied = jax.jit(product)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([(16, 16, "float32"), (300, 77, "bfloat16"), (700, 32, "int8"), (257, 1, "float32")]),
    st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_rows_that_are_kept_are_multiplied_and_each_by_itself(matrices: tuple[int, int, str], kept: list[bool]) -> None:
    *shape, dtype = matrices
    random = np.random.default_rng(shape[0])
    matrix = jnp.asarray(random.integers(-99, 99, shape), dtype)
    matrix = matrix if dtype == "int8" else matrix * 1.1
    rows, keep = random.standard_normal((20, shape[0])).astype(np.float32), np.array(kept)
    found = np.asarray(multiplied(rows, in_panels(matrix), keep))
    exact = rows.astype(np.float64) @ np.asarray(matrix.astype(jnp.float32), np.float64)
    np.testing.assert_allclose(found[keep], exact[keep], atol=2e-5 * np.abs(exact).max())
    assert not found[~keep].any()
    all_ = np.asarray(multiplied(rows, in_panels(matrix)))
    assert np.array_equal(found[keep], all_[keep])
    assert np.array_equal(np.asarray(multiplied(rows[7:8], in_panels(matrix))), all_[7:8])


@pytest.mark.parametrize("count", [1, 3, 7, 130])
def test_matrices_side_by_side_and_by_turns_are_multiplied_each_as_alone(count: int) -> None:
    random = np.random.default_rng(count)
    rows = jnp.asarray(random.standard_normal((count, 300)), jnp.float32)
    of_tiles = [random.integers(-99, 99, (300, width)).astype(np.int8) for width in (48, 48, 32)]
    one, other, third = (
        in_panels(jnp.asarray(matrix), jnp.asarray(random.random(matrix.shape[1]), jnp.float32)) for matrix in of_tiles
    )
    alone = [np.asarray(multiplied(rows, each)) for each in (one, other, third)]
    np.testing.assert_allclose(alone[2], (rows @ of_tiles[2]) * third.scales, rtol=1e-4, atol=1e-2)
    assert np.array_equal(multiplied(rows, side_by_side(one, other, third)), np.concatenate(alone, axis=1))
    turns = np.asarray(multiplied(rows, by_turns(one, other))).reshape(count, -1, 2, 16)
    assert np.array_equal(turns.swapaxes(1, 2).reshape(count, 2, -1), np.stack(alone[:2], axis=1))
