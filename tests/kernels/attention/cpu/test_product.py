"""Products by our kernel for CPUs: right, and of each row the same bits whatever the others are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.kernels.attention.cpu.product import in_panels, product
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
