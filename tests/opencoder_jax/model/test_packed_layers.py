"""The layers by our kernels for CPUs beside XLA's, and that a token's bits depend on its row alone."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.kernels.attention.rows import cpu_kernels
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import Decoder
from opencoder_jax.model.decoding import Alike, Cache, Weights, empty_cache, extend, in_eight_bits, weights_of

pytestmark = pytest.mark.skipif(not cpu_kernels(), reason="no C++ compiler, or no CPU")
# Heads one to one and shared, a feed-forward and a width that fill no whole tiles, and weights of all kinds.
MODELS = {
    "float32": ModelConfig(40, 2, 24, 3, 3, 16, 20, context=96, init_std=0.2, dtype="float32"),
    "bfloat16": ModelConfig(40, 2, 48, 6, 2, 32, 56, context=96, init_std=0.2, dtype="bfloat16"),
    "int8": ModelConfig(40, 2, 32, 4, 1, 160, 48, context=96, init_std=0.2, dtype="float32"),
}
ROWS, LENGTH, SLOTS = 3, 20, 96
kinds = pytest.mark.parametrize(
    "name", ["float32", *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name != "float32")]
)
read = jax.jit(extend, static_argnames=("config", "wanted"))


@cache
def weights(name: str) -> tuple[ModelConfig, Weights, Weights]:
    """A model's weights as XLA's products take them, and packed."""
    config = MODELS[name]
    state = nnx.to_pure_dict(nnx.state(Decoder(config, nnx.Rngs(0))))
    dtype = jnp.dtype(config.dtype)
    place = lambda weight, which: weight if which.endswith("norm") else weight.astype(dtype)  # noqa: E731
    hold: Any = in_eight_bits if name == "int8" else lambda matrix: matrix
    plain, packed = (weights_of(state, config, place, hold, as_kernels_read) for as_kernels_read in (False, True))
    return config, plain, packed


def filled(config: ModelConfig, rows: int = ROWS, slots: int = SLOTS) -> Cache:
    """A cache in which something stands everywhere."""
    random = np.random.default_rng(0)
    empty = empty_cache(config, rows, slots, config.dtype)
    return jax.tree.map(lambda each: jnp.asarray(random.standard_normal(each.shape), each.dtype), empty)


def turned(keys: jax.Array) -> jax.Array:
    """Keys that lie one after the other, in tiles of 16."""
    *of_all, size = keys.shape
    return keys.reshape(*of_all[:2], -1, 16, size).swapaxes(3, 4).reshape(keys.shape)


def untiled(keys: jax.Array) -> jax.Array:
    *of_all, size = keys.shape
    return keys.reshape(*of_all[:2], -1, size, 16).swapaxes(3, 4).reshape(keys.shape)


def tokens(seed: int, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 40, (rows, LENGTH))


@kinds
@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, SLOTS), min_size=ROWS, max_size=ROWS),
    st.lists(st.integers(0, LENGTH), min_size=ROWS, max_size=ROWS),
)
def test_is_what_xla_computes(name: str, before: list[int], count: list[int]) -> None:
    """Wherever the rows stand, up to behind the last slot; and of one row what is computed of it among all."""
    config, plain, packed = weights(name)
    old, new = filled(config), tokens(0)
    tiled = Cache(tuple(map(turned, old.keys)), old.values)
    places = np.array(before, np.int32), np.array(count, np.int32)
    expected, of_xla = read(plain, config, old, new, *places)
    found, ours = read(packed, config, tiled, new, *places)
    tolerance = 0.1 if name == "bfloat16" else 1e-4
    written = [slice(before[row], before[row] + count[row]) for row in range(ROWS)]
    for row in range(ROWS):
        valid = min(count[row], SLOTS - before[row])
        mine, other = (np.asarray(each[row, :valid], np.float32) for each in (found, expected))
        np.testing.assert_allclose(mine, other, atol=tolerance)
        assert not np.asarray(found[row, count[row] :]).any()
    caches = [*zip(map(untiled, ours.keys), of_xla.keys, old.keys, strict=True)]
    caches += [*zip(ours.values, of_xla.values, old.values, strict=True)]
    for mine, other, was in ([np.array(each, np.float32) for each in three] for three in caches):
        for row in range(ROWS):
            np.testing.assert_allclose(mine[row, :, written[row]], other[row, :, written[row]], atol=tolerance)
            mine[row, :, written[row]] = was[row, :, written[row]]
        np.testing.assert_array_equal(mine, was)

    of_one, of_row = read(packed, config, tiled, new[1:2], *(each[1:2] for each in places), np.int32(1))
    np.testing.assert_array_equal(of_one[0], found[1])
    unwanted = read(packed, config, tiled, new[1:2], *(each[1:2] for each in places), np.int32(1), wanted=False)[1]
    for one, not_wanted, all_, was in zip(*map(jax.tree.leaves, (of_row, unwanted, ours, tiled)), strict=True):
        np.testing.assert_array_equal(one[1], all_[1])
        np.testing.assert_array_equal(one[0], was[0])
        np.testing.assert_array_equal(one, not_wanted)


@kinds
def test_a_token_alone_has_the_bits_that_it_has_among_others(name: str) -> None:
    config, _, packed = weights(name)
    new, zeros = tokens(1), np.zeros(ROWS, np.int32)
    together, _ = read(packed, config, filled(config), new, zeros, np.full(ROWS, LENGTH, np.int32))
    # One by one, in other rows of another cache.
    cache, place = filled(config, rows=5, slots=128), np.int32(3)
    for token in range(LENGTH):
        before = np.array([token], np.int32)
        alone, cache = read(packed, config, cache, new[1:2, token : token + 1], before, np.ones(1, np.int32), place)
        assert np.array_equal(alone[0, 0], together[1, token])


@kinds
def test_what_rows_share_may_be_read_in_one_of_them(name: str) -> None:
    """And is: that the others hold something else there isn't seen."""
    config, _, packed = weights(name)
    first, count = np.tile(tokens(2, 1), (ROWS, 4)), np.full(ROWS, 4 * LENGTH, np.int32)
    _, held = read(packed, config, filled(config), first, np.zeros(ROWS, np.int32), count)
    new, one = tokens(3)[:, :1], np.ones(ROWS, np.int32)
    expected, _ = read(packed, config, held, new, count, one)
    lost = jax.tree.map(lambda each: each.at[1:, :, :64].set(7), held)
    shared = Alike(np.zeros(ROWS, np.int32), np.array([0, 64, 79], np.int32))  # type: ignore[arg-type]
    found, _ = read(packed, config, lost, new, count, one, alike=shared)
    assert np.array_equal(found, expected)
    assert not np.array_equal(read(packed, config, lost, new, count, one)[0], expected)
