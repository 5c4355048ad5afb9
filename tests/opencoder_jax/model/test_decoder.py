"""The decoder against one written a second time, in float64 and numpy, head by head and token by token."""

import dataclasses
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opencoder_jax.model import decoder
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import REMAT, Decoder, abstract
from opencoder_jax.recipe import bind, build

ROOT = Path(__file__).resolve().parents[3]
# The two shapes of OpenCoder, small: every head with its own keys and size 160, and grouped heads.
ONE_TO_ONE = ModelConfig(40, 2, 24, 2, 2, 160, 20, 10_000.0, 1e-5, 32, 0.2, "float32")
GROUPED = ModelConfig(40, 3, 24, 6, 2, 8, 20, 500_000.0, 1e-5, 32, 0.2, "float32")
CONFIGS = pytest.mark.parametrize("config", [ONE_TO_ONE, GROUPED], ids=["one_to_one", "grouped"])


@nnx.jit
def hidden_states(decoder: Decoder, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    return decoder(tokens, positions)


@cache
def made(config: ModelConfig) -> tuple[Decoder, dict[str, np.ndarray]]:
    """A decoder, and its weights by path. They are drawn here: the model's own would be slow to compile."""
    graphdef, shapes = abstract(config)
    random = np.random.default_rng(0)
    weights = {}
    for path, weight in nnx.to_flat_state(shapes):
        drawn = random.uniform(0.5, 1.5, weight.shape) if "norm" in path[-1] else random.normal(0, 0.2, weight.shape)
        weights[".".join(path)] = drawn.astype(np.float32).astype(np.float64)
    state = nnx.map_state(lambda path, weight: jnp.asarray(weights[".".join(path)], weight.dtype), shapes)
    return nnx.merge(graphdef, state), weights


def norm(x: np.ndarray, scale: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x) + eps) * scale


def turn(x: np.ndarray, position: int, theta: float) -> np.ndarray:
    """Turns the pairs as complex numbers."""
    half = len(x) // 2
    pairs = x[:half] + 1j * x[half:]
    pairs = pairs * np.exp(1j * position * np.array([theta ** (-2 * i / len(x)) for i in range(half)]))
    return np.concatenate([pairs.real, pairs.imag])


def logits_of(config: ModelConfig, w: dict[str, np.ndarray], row: list[int]) -> np.ndarray:
    """Logits [S, V] of one document."""
    stream = [w["embedding"][token] for token in row]
    for layer in range(config.layers):
        of = {name.removeprefix("layers."): value[layer] for name, value in w.items() if name.startswith("layers.")}
        inputs = [norm(x, of["attention_norm"], config.norm_eps) for x in stream]
        mixed = [np.zeros(config.width) for _ in row]
        for head in range(config.heads):
            shared = head // (config.heads // config.kv_heads)
            q = [turn(x @ of["query"][:, head], i, config.rope_theta) for i, x in enumerate(inputs)]
            k = [turn(x @ of["key"][:, shared], i, config.rope_theta) for i, x in enumerate(inputs)]
            v = [x @ of["value"][:, shared] for x in inputs]
            for i in range(len(row)):
                scores = np.exp([q[i] @ k[j] / np.sqrt(config.head_size) for j in range(i + 1)])
                mixed[i] += (scores / scores.sum()) @ np.array(v[: i + 1]) @ of["output"][head]
        for i in range(len(row)):
            x = stream[i] + mixed[i]
            h = norm(x, of["ffn_norm"], config.norm_eps)
            gate = h @ of["gate"]
            stream[i] = x + (gate / (1 + np.exp(-gate)) * (h @ of["up"])) @ of["down"]
    return np.array([norm(x, w["final_norm"], config.norm_eps) for x in stream]) @ w["head"]


def row_of_documents(config: ModelConfig, *lengths: int) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens [1, S] and the positions of documents in them."""
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (1, sum(lengths)))
    return tokens, np.concatenate([np.arange(length) for length in lengths])[None]


@CONFIGS
@pytest.mark.parametrize("lengths", [(9,), (4, 7)])
def test_logits_equal_the_second_decoder(config: ModelConfig, lengths: tuple[int, ...]) -> None:
    decoder, weights = made(config)
    tokens, positions = row_of_documents(config, *lengths)
    logits = hidden_states(decoder, tokens, positions) @ decoder.head[...]
    bounds = np.cumsum((0, *lengths))
    documents = [tokens[0, a:b].tolist() for a, b in pairwise(bounds)]
    expected = np.concatenate([logits_of(config, weights, document) for document in documents])
    np.testing.assert_allclose(logits[0], expected, atol=1e-5)


def leaf(tree: dict[str, Any], name: str) -> np.ndarray:
    for part in name.split("."):
        tree = tree[part]
    return np.asarray(tree)


def gradients(decoder: Decoder, tokens: np.ndarray, positions: np.ndarray, mix: np.ndarray, remat: str) -> Any:
    """Of the sum of the first row's logits times a mix of them, with respect to every weight."""
    graphdef, state = nnx.split(decoder)

    @jax.jit
    @jax.grad
    def gradient_of(state: nnx.State) -> jax.Array:
        decoder = nnx.merge(graphdef, state)
        return jnp.sum(decoder(tokens, positions, remat=remat)[0] @ decoder.head[...] * mix)

    return nnx.to_pure_dict(gradient_of(state))


@pytest.mark.parametrize(
    "config", [GROUPED, pytest.param(ONE_TO_ONE, marks=pytest.mark.slow)], ids=["grouped", "one_to_one"]
)
def test_gradients_equal_finite_differences(config: ModelConfig) -> None:
    decoder, weights = made(config)
    tokens, positions = row_of_documents(config, 6)
    mix = np.random.default_rng(2).standard_normal((6, config.vocab_size))
    found = gradients(decoder, tokens, positions, mix, remat="none")
    random = np.random.default_rng(3)
    for name, weight in weights.items():
        gradient = leaf(found, name)
        place = tuple(random.integers(0, weight.shape))
        if name == "embedding":
            place = (tokens[0, 2], place[1])
        ends = []
        for step in (1e-5, -1e-5):
            moved = weight.copy()
            moved[place] += step
            ends.append(np.sum(logits_of(config, weights | {name: moved}, tokens[0].tolist()) * mix))
        np.testing.assert_allclose(
            gradient[place], (ends[0] - ends[1]) / 2e-5, rtol=1e-3, atol=1e-3 * np.abs(gradient).max(), err_msg=name
        )


@pytest.mark.slow
@pytest.mark.parametrize("remat", sorted(REMAT.keys() - {"none"}))
def test_what_is_computed_again_changes_no_gradient(remat: str) -> None:
    decoder, weights = made(GROUPED)
    tokens, positions = row_of_documents(GROUPED, 6)
    mix = np.random.default_rng(2).standard_normal((6, GROUPED.vocab_size))
    kept, again = (gradients(decoder, tokens, positions, mix, remat=way) for way in ("none", remat))
    for name in weights:
        np.testing.assert_allclose(leaf(again, name), leaf(kept, name), atol=1e-4, err_msg=name)


def test_one_document_cannot_touch_another() -> None:
    decoder, _ = made(GROUPED)
    tokens, positions = row_of_documents(GROUPED, 5, 8, 6)
    before = np.asarray(hidden_states(decoder, tokens, positions))
    tokens[:, 5:13] = (tokens[:, 5:13] + 1) % GROUPED.vocab_size
    after = np.asarray(hidden_states(decoder, tokens, positions))
    assert np.array_equal(before[:, :5], after[:, :5])
    assert np.array_equal(before[:, 13:], after[:, 13:])
    assert not np.array_equal(before[:, 5:13], after[:, 5:13])


def test_bfloat16_computes_what_float32_does_roughly() -> None:
    tokens, positions = row_of_documents(GROUPED, 9)
    decoder, _ = made(GROUPED)
    graphdef, _ = abstract(dataclasses.replace(GROUPED, dtype="bfloat16"))
    exact = hidden_states(decoder, tokens, positions)
    rough = hidden_states(nnx.merge(graphdef, nnx.state(decoder)), tokens, positions)
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(rough, np.float32), exact, atol=0.1)


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "gin_configs" / "models").glob("*.gin")))
def test_every_weight_is_counted_and_names_its_axes(file: str) -> None:
    bind([f"gin_configs/models/{file}"])
    config = build(ModelConfig)
    _, state = abstract(config)
    weights = [weight for _, weight in nnx.to_flat_state(state)]
    assert sum(weight.size for weight in weights) == config.parameters()
    sizes = {
        "vocabulary": config.vocab_size,
        "layers": config.layers,
        "width": config.width,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "head_size": config.head_size,
        "ffn": config.ffn_width,
    }
    for weight in weights:
        assert weight.dtype == jnp.float32
        assert weight.shape == tuple(sizes[axis] for axis in weight.get_metadata()["axes"])


def test_weights_begin_as_the_configuration_says() -> None:
    init = nnx.jit(lambda seed: Decoder(GROUPED, nnx.Rngs(jax.random.key(seed))))
    decoder = init(0)
    for weight in (decoder.embedding, decoder.head, decoder.layers.query, decoder.layers.down):
        values = np.asarray(weight[...])
        np.testing.assert_allclose(values.std(), GROUPED.init_std, rtol=0.1)
        assert abs(values.mean()) < GROUPED.init_std / 10
    assert np.all(np.asarray(decoder.layers.attention_norm[...]) == 1)
    assert np.array_equal(decoder.head[...], init(0).head[...])
    assert not np.array_equal(decoder.head[...], init(1).head[...])


@pytest.mark.slow
@pytest.mark.parametrize("config", [GROUPED, ONE_TO_ONE])
def test_rows_that_fill_no_tile_are_lengthened_for_tpus_and_stay_the_same(
    config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = made(config)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, config.vocab_size, (2, 21)), jnp.int32)
    positions = jnp.asarray([[*range(21)], [*range(8), *range(13)]], jnp.int32)

    def with_gradients(model: Decoder) -> tuple[jax.Array, jax.Array]:
        hidden, back = jax.vjp(lambda x: model.after_embedding(x, positions), model.embed(tokens))
        return hidden, *back(jnp.cos(hidden))

    expected = nnx.jit(with_gradients)(model)
    monkeypatch.setattr(decoder, "traced_for", lambda: ("tpu", "TPU v5 lite"))
    assert "128" in str(jax.make_jaxpr(lambda x: model.after_embedding(x, positions))(model.embed(tokens)))
    for one, other in zip(nnx.jit(lambda model: with_gradients(model))(model), expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=2e-6 * float(jnp.abs(other).max()))
