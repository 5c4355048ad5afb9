"""The network as an engine runs it: new tokens of some rows at a time, over a cache of their keys and values.

It computes what `Decoder` does (tests/opencoder_jax/model/test_decoding.py), from weights that lie otherwise: each
layer's apart, because a scan over stacked ones copies them before it multiplies, and reading the weights is most of the
time of a step; and in the dtype that they are multiplied in, or in 8 bits.

Shapes: R rows of the cache, T slots in a row, B rows with new tokens, S new tokens in each, N = B * S; W, H, K, D, F, V
as in decoder.py.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8

from opencoder_jax.kernels.attention.cached import append_and_attend, cached_size
from opencoder_jax.kernels.attention.cpu.layers import run_layers
from opencoder_jax.kernels.attention.cpu.packed import PackedLayer, Panels, by_turns, in_panels, product, side_by_side
from opencoder_jax.kernels.attention.rows import by_rows
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import rms_norm, rope_angles, rotate


class Eight(NamedTuple):
    """A matrix in 8 bits: column j is values[:, j] * scales[j]."""

    values: Int8[Array, "I O"]
    scales: Float[Array, " O"]


Matrix = Array | Eight


class LayerWeights(NamedTuple):
    """One layer's weights, named as in `Layer`; a matrix has two axes, inputs and outputs."""

    attention_norm: Float[Array, " W"]
    query: Matrix
    key: Matrix
    value: Matrix
    output: Matrix
    ffn_norm: Float[Array, " W"]
    gate: Matrix
    up: Matrix
    down: Matrix


class Weights(NamedTuple):
    """A decoder's weights."""

    embedding: Float[Array, "V W"]
    layers: tuple[LayerWeights, ...] | tuple[PackedLayer, ...]
    final_norm: Float[Array, " W"]
    head: Matrix | Panels  # [W, V]


class Cache(NamedTuple):
    """The keys and values of each layer: of row r's token at position p at [r, :, p], in the dtype of the stream.

    On TPUs they have zeros behind them, up to a multiple of 128 (cached.py); with packed layers, keys lie otherwise
    (kernels/attention/cpu/layers.py).
    """

    keys: tuple[Float[Array, "R K T D"], ...]
    values: tuple[Float[Array, "R K T D"], ...]

    @property
    def rows(self) -> int:
        return int(self.keys[0].shape[0])

    @property
    def slots(self) -> int:
        return int(self.keys[0].shape[2])


class Alike(NamedTuple):
    """Of each row another, or itself, that holds the same tokens in so many first slots, and may be read there."""

    source: Int[Array, " B"]
    slots: Int[Array, " B"]


MATRICES = {"query": 1, "key": 1, "value": 1, "output": 2, "gate": 1, "up": 1, "down": 1}  # leading axes of inputs


def weights_of(
    parameters: Mapping[str, Any],
    config: ModelConfig,
    place: Callable[[Any, str], Any] = lambda weight, _: weight,
    hold: Callable[[Any], Matrix] = lambda matrix: matrix,
    as_kernels_read: bool = False,
) -> Weights:
    """The weights of a decoder.

    Args:
        parameters: its state in nested dictionaries.
        place: given one weight (of a layer one layer's, in its axes of old) and its name, it puts it where it will lie,
            in the dtype that it shall have.
        hold: makes of a placed matrix [I, O] what is held of it.
        as_kernels_read: packs layers and head for our kernels for CPUs.
    """

    def one(index: int, name: str) -> Any:
        weight = place(parameters["layers"][name][index], name)
        return hold(weight.reshape(prod(weight.shape[: MATRICES[name]]), -1)) if name in MATRICES else weight

    def layer(index: int) -> LayerWeights | PackedLayer:
        weights = LayerWeights(*(one(index, name) for name in LayerWeights._fields))
        return packed(weights) if as_kernels_read else weights

    layers: Any = tuple(layer(index) for index in range(config.layers))
    head = parameters["embedding"].T if config.tied_head else parameters["head"]
    embedding, final_norm = (place(parameters[name], name) for name in ("embedding", "final_norm"))
    held = hold(place(head, "head"))
    return Weights(embedding, layers, final_norm, _panels(held) if as_kernels_read else held)


def packed(layer: LayerWeights) -> PackedLayer:
    """A layer as our kernels for CPUs read it."""
    query, key, value, output, gate, up, down = (_panels(getattr(layer, name)) for name in MATRICES)
    heads = side_by_side(query, key, value)
    return PackedLayer(layer.attention_norm, heads, output, layer.ffn_norm, by_turns(gate, up), down)


def _panels(matrix: Matrix) -> Panels:
    return in_panels(*matrix) if isinstance(matrix, Eight) else in_panels(matrix)


def in_eight_bits(matrix: Float[Array, "I O"]) -> Eight:
    """Rounds a matrix, with a scale for each column: the greatest of it becomes 127."""
    scales = jnp.maximum(jnp.abs(matrix).max(axis=0), jnp.finfo(jnp.float32).tiny) / 127
    return Eight(jnp.round(matrix / scales).astype(jnp.int8), scales)


def empty_cache(config: ModelConfig, rows: int, slots: int, dtype: Any) -> Cache:
    """A cache for `rows` rows of at most `slots` tokens each."""
    shape = (rows, config.kv_heads, slots, cached_size(config.head_size))
    empty = lambda: tuple(jnp.zeros(shape, dtype) for _ in range(config.layers))  # noqa: E731
    return Cache(empty(), empty())


def extend(
    weights: Weights,
    config: ModelConfig,
    cache: Cache,
    tokens: Int[Array, "B S"],
    before: Int[Array, " B"],
    count: Int[Array, " B"],
    row: Int[Array, ""] | None = None,
    alike: Alike | None = None,
    wanted: bool = True,
) -> tuple[Float[Array, "B S W"], Cache]:
    """Reads S more tokens of all rows, or of one.

    Args:
        before: how many tokens of each row were read before.
        count: how many of the S are to be kept; the others are padding behind them.
        row: of the cache, where the tokens are of one row; None: of all R.
        alike: what rows have read in common; it changes no result.
        wanted: whether the hidden states are; otherwise they mean nothing.

    Returns:
        The final-normed hidden state of each token, and the cache with their keys and values.
    """
    if isinstance(weights.layers[0], PackedLayer):
        return _extend_packed(weights, config, cache, tokens, before, count, row, alike, wanted)
    rows, length = tokens.shape
    kept = (jnp.arange(length) < count[:, None]).reshape(-1)
    multiplied = partial(project, kept=kept)
    positions = before[:, None] + jnp.arange(length)
    x = weights.embedding[tokens.reshape(-1)].astype(cache.keys[0].dtype)
    turned = partial(rotate, angles=rope_angles(config, positions.reshape(-1)))
    all_keys, all_values = [], []
    for layer, keys, values in zip(weights.layers, cache.keys, cache.values, strict=True):
        h = rms_norm(x, layer.attention_norm, config.norm_eps)
        q, k, v = (
            multiplied(h, matrix).reshape(len(x), -1, config.head_size)
            for matrix in (layer.query, layer.key, layer.value)
        )
        q, k, v = (each.reshape(rows, length, *each.shape[1:]) for each in (turned(q), turned(k), v))
        mixed, keys, values = append_and_attend(q, k, v, keys, values, before, count, row)
        all_keys.append(keys)
        all_values.append(values)
        x = x + multiplied(mixed.reshape(len(x), -1), layer.output)
        h = rms_norm(x, layer.ffn_norm, config.norm_eps)
        x = x + multiplied(jax.nn.silu(multiplied(h, layer.gate)) * multiplied(h, layer.up), layer.down)
    hidden = rms_norm(x, weights.final_norm, config.norm_eps)
    return hidden.reshape(rows, length, -1), Cache(tuple(all_keys), tuple(all_values))


def _extend_packed(
    weights: Weights,
    config: ModelConfig,
    cache: Cache,
    tokens: Int[Array, "B S"],
    before: Int[Array, " B"],
    count: Int[Array, " B"],
    row: Int[Array, ""] | None,
    alike: Alike | None,
    wanted: bool,
) -> tuple[Float[Array, "B S W"], Cache]:
    """`extend` by our kernels for CPUs."""
    rows, length = tokens.shape
    positions = before[:, None] + jnp.arange(length)
    first = jnp.int32(0) if row is None else row
    alike = alike or Alike(first + jnp.arange(rows, dtype=jnp.int32), jnp.zeros(rows, jnp.int32))
    hidden, keys, values = run_layers(
        weights.embedding[tokens.reshape(-1)],
        rope_angles(config, positions.reshape(-1)),
        weights.layers,  # type: ignore[arg-type]
        weights.final_norm,
        (cache.keys, cache.values),
        before,
        count,
        first,
        alike,
        config.heads,
        config.norm_eps,
        wanted,
    )
    return hidden.reshape(rows, length, -1), Cache(keys, values)


def logits(weights: Weights, hidden: Float[Array, "N W"], kept: Bool[Array, " N"] | None = None) -> Float[Array, "N V"]:
    """In float32; of hidden states that aren't kept they mean nothing."""
    return project(hidden, weights.head, jnp.float32, kept)


def project(
    x: Float[Array, "N I"], matrix: Matrix | Panels, dtype: Any = None, kept: Bool[Array, " N"] | None = None
) -> Float[Array, "N O"]:
    """`x` times a matrix, summed up in float32, in the dtype of `x` unless another is asked for.

    What comes of rows that aren't kept is finite, and means nothing.
    """
    if isinstance(matrix, Panels):
        return product(x, matrix, kept).astype(dtype or x.dtype)
    stored = matrix.values if isinstance(matrix, Eight) else matrix
    by_xla = partial(jnp.matmul, preferred_element_type=jnp.float32)
    result = by_rows(lambda rows: by_xla(rows, stored.astype(rows.dtype)), x)
    return (result * matrix.scales if isinstance(matrix, Eight) else result).astype(dtype or x.dtype)
