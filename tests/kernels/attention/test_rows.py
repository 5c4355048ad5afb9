"""A row's product is a function of the row, to the bit, on CPUs: however many rows there are, wherever it stands."""

import jax.numpy as jnp
import numpy as np
import pytest

from opencoder_jax.kernels.attention.rows import by_rows, jit_by_rows

by_rows_jitted = jit_by_rows()(lambda rows, matrix: by_rows(lambda part: part @ matrix, rows))


@pytest.mark.parametrize(("inner", "outer"), [(16, 16), (64, 300), (576, 1536), (1536, 576)])
def test_a_row_does_not_depend_on_the_others(inner: int, outer: int) -> None:
    random = np.random.default_rng(inner)
    matrix = jnp.asarray(random.standard_normal((inner, outer)), jnp.float32)
    rows = random.standard_normal((70, inner)).astype(np.float32)
    alone = np.concatenate([by_rows_jitted(rows[index : index + 1], matrix) for index in range(70)])
    np.testing.assert_allclose(alone, rows.astype(np.float64) @ np.asarray(matrix, np.float64), rtol=1e-3, atol=1e-3)
    for count in (2, 3, 8, 31, 32, 33, 65, 70):
        chosen = random.permutation(70)[:count]
        assert np.array_equal(by_rows_jitted(rows[chosen], matrix), alone[chosen]), count
