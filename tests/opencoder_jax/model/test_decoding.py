"""Reading a row piece by piece, beside rows of other lengths, equals the decoder's reading it at once."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import Decoder
from opencoder_jax.model.decoding import empty_cache, extend, in_eight_bits, logits, weights_of
from tests.slow_cases import slow_but

ONE_TO_ONE = ModelConfig(40, 2, 24, 2, 2, 160, 20, 10_000.0, 1e-5, 32, 0.2, "float32")
GROUPED = ModelConfig(40, 3, 24, 6, 2, 8, 20, 500_000.0, 1e-5, 32, 0.2, "float32")
LIKE_LLAMA_3 = dataclasses.replace(GROUPED, rope_scaling=(8.0, 1.0, 4.0, 16), tied_head=True)
CONFIGS = {"one to one": ONE_TO_ONE, "grouped": GROUPED, "Llama 3's": LIKE_LLAMA_3}
ROWS, LENGTH, AT_ONCE = 3, 24, 6

extend_jitted = jax.jit(extend, static_argnames="config")


@pytest.mark.parametrize("name", slow_but(CONFIGS, "grouped"))
def test_read_in_pieces_equals_read_at_once(name: str) -> None:
    config = CONFIGS[name]
    decoder = Decoder(config, nnx.Rngs(0))
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (ROWS, LENGTH))
    positions = np.broadcast_to(np.arange(LENGTH), tokens.shape)
    hidden = nnx.jit(lambda decoder: decoder(tokens, positions))(decoder)
    expected = np.asarray(hidden @ decoder.to_logits)
    weights = weights_of(nnx.to_pure_dict(nnx.state(decoder)), config)
    rate = jax.jit(logits)

    @settings(max_examples=8)
    @given(st.lists(st.lists(st.integers(0, AT_ONCE), min_size=ROWS, max_size=ROWS), max_size=10))
    def check(pieces: list[list[int]]) -> None:
        cache = empty_cache(config, ROWS, 32, "float32")
        before = np.zeros(ROWS, np.int32)
        for piece in [*pieces, *[[AT_ONCE] * ROWS] * 4]:
            count = np.minimum(piece, LENGTH - before).astype(np.int32)
            at_once = np.zeros((ROWS, AT_ONCE), np.int32)
            for row in range(ROWS):
                at_once[row, : count[row]] = tokens[row, before[row] : before[row] + count[row]]
            found, cache = extend_jitted(weights, config, cache, at_once, before, count)
            found = np.asarray(rate(weights, found.reshape(ROWS * AT_ONCE, -1))).reshape(ROWS, AT_ONCE, -1)
            for row in range(ROWS):
                wanted = expected[row, before[row] : before[row] + count[row]]
                np.testing.assert_allclose(found[row, : count[row]], wanted, atol=1e-4)
            before += count
        assert before.tolist() == [LENGTH] * ROWS

    check()


def test_eight_bits_round_to_the_nearest_of_255_steps() -> None:
    matrix = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    matrix[:, 3] = 0
    rounded = in_eight_bits(matrix)
    back = np.asarray(rounded.values, np.float32) * np.asarray(rounded.scales)
    step = np.abs(matrix).max(axis=0) / 127
    assert np.all(np.abs(back - matrix) <= step * 0.501)
