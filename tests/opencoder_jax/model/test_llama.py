"""The decoder against transformers' LlamaForCausalLM, on the same random weights (llama_golden.py made the file)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from llama_golden import GOLDEN, PROMPT, SIZES, prompt_of, some_entries, weights_of

from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract
from opencoder_jax.model.loss import cross_entropy
from tests.slow_cases import slow_but


@pytest.mark.parametrize("size", slow_but(SIZES, "1p5b"))
def test_logits_greedy_tokens_and_gradients_are_theirs(size: str) -> None:
    golden = np.load(GOLDEN)
    config = ModelConfig(**SIZES[size], norm_eps=1e-5, context=32, dtype="float32")
    graphdef, shapes = abstract(config)
    weights = weights_of(size)
    state = nnx.map_state(lambda path, weight: jnp.asarray(weights[".".join(path)]), shapes)
    tokens = golden[f"{size}.tokens"]
    np.testing.assert_array_equal(tokens[:, :PROMPT], prompt_of(size))
    positions = np.arange(tokens.shape[1])[None]
    targets = np.roll(tokens, -1, axis=1)
    mask = np.ones(tokens.shape, np.float32)
    mask[:, -1] = 0

    @jax.jit
    @jax.value_and_grad
    def mean_loss(state: nnx.State) -> jax.Array:
        decoder = nnx.merge(graphdef, state)
        return cross_entropy(decoder(tokens, positions), decoder.to_logits, targets, mask, 10) / mask.sum()

    @jax.jit
    def logits_of(state: nnx.State) -> jax.Array:
        decoder = nnx.merge(graphdef, state)
        return jnp.matmul(decoder(tokens, positions)[0], decoder.to_logits)

    logits = np.asarray(logits_of(state), np.float64)
    ours, theirs = (
        x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (logits, golden[f"{size}.logits"].astype(float))
    )
    divergence = (np.exp(theirs) * (theirs - ours)).sum(-1)
    assert divergence.max() < 1e-9
    # Teacher-forced with their greedy tokens, ours are the same ones.
    np.testing.assert_array_equal(logits.argmax(-1)[PROMPT - 1 : -1], tokens[0, PROMPT:])

    loss, gradient = mean_loss(state)
    np.testing.assert_allclose(loss, golden[f"{size}.loss"], rtol=1e-6)
    for path, found in nnx.to_flat_state(gradient):
        expected = golden[f"{size}.gradient.{'.'.join(path)}"]
        entries = some_entries(np.asarray(found[...], np.float64))
        # Of entries, an absolute error against the gradient's root mean square.
        scale = expected[-1] / np.sqrt(found.size)
        np.testing.assert_allclose(entries[:-1], expected[:-1], atol=1e-4 * scale, rtol=1e-4, err_msg=str(path))
        np.testing.assert_allclose(entries[-1], expected[-1], rtol=1e-5, err_msg=str(path))
