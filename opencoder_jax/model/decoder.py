"""The network: a decoder in the shape of Llama, as OpenCoder is (arXiv 2411.04905, section 3.1).

`Decoder` is embedding, layers, norm and head; `Layer` is attention and SwiGLU, each added to the stream. The weights of
all layers are stacked on a leading axis and scanned, so that compiling costs the same at any depth.

Each weight names its axes where it is made, in order, and keeps the names as its metadata `axes`. Which of them a mesh
divides is the mesh's business (opencoder_jax/parallel/mesh.py). Parameters are float32; `config.dtype` is what the
matrices are multiplied in.

The layers see the B rows of S tokens as one row of N = B * S: attention alone wants to know where rows end. So XLA lays
out what lies between products as these want it, where rows of their own would cost copies (tests/benchmarks/LOG.md).

Shapes: B rows, S tokens in a row, N tokens in all, W width, H heads, K heads of keys and values, D head size,
F feed-forward width, V vocabulary.
"""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float, Int, PyTree

from opencoder_jax.kernels.attention.attention import attention, traced_for
from opencoder_jax.kernels.attention.tpu.tiles import LANES
from opencoder_jax.model.config import ModelConfig

_policies = jax.checkpoint_policies
_mixed = _policies.save_only_these_names("attention_mixed", "attention_log_sums")  # names that the kernels give
_products = _policies.dots_with_no_batch_dims_saveable
_to_host = _policies.offload_dot_with_no_batch_dims("device", "pinned_host")

# What the backward pass finds of a layer; the rest is computed again, from the layer's input.
REMAT = {
    # Everything, without asking.
    "none": None,
    # The products with the weights, and what attention made of them. Norms, rotary embedding and SwiGLU are computed
    # again: to store them takes longer.
    "dots": _policies.save_from_both_policies(_products, _mixed),
    # As "dots", but in the host's memory.
    "offload": lambda *arguments, **of: _mixed(*arguments, **of) or _to_host(*arguments, **of),
    # What attention made of the layer's input: one more array of the input's size saves a second attention.
    "attention": _mixed,
    # Nothing.
    "full": _policies.nothing_saveable,
}


def normal(rngs: nnx.Rngs, std: float, **axes: int) -> nnx.Param:
    """A weight drawn from a normal distribution; `axes` are its logical axes, in order, with their sizes."""
    return nnx.Param(std * jax.random.normal(rngs.params(), tuple(axes.values())), axes=tuple(axes))


def ones(**axes: int) -> nnx.Param:
    """The scale of a norm, one at first."""
    return nnx.Param(jnp.ones(tuple(axes.values())), axes=tuple(axes))


class Layer(nnx.Module):
    """One layer, or all of them: the weights carry a leading axis `layers`, and a scan hands out one at a time."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        std, layers, width, size = config.init_std, config.layers, config.width, config.head_size
        self.attention_norm = ones(layers=layers, width=width)
        self.query = normal(rngs, std, layers=layers, width=width, heads=config.heads, head_size=size)
        self.key = normal(rngs, std, layers=layers, width=width, kv_heads=config.kv_heads, head_size=size)
        self.value = normal(rngs, std, layers=layers, width=width, kv_heads=config.kv_heads, head_size=size)
        self.output = normal(rngs, std, layers=layers, heads=config.heads, head_size=size, width=width)
        self.ffn_norm = ones(layers=layers, width=width)
        self.gate = normal(rngs, std, layers=layers, width=width, ffn=config.ffn_width)
        self.up = normal(rngs, std, layers=layers, width=width, ffn=config.ffn_width)
        self.down = normal(rngs, std, layers=layers, ffn=config.ffn_width, width=width)

    def __call__(self, x: Float[Array, "N W"], positions: Int[Array, "B S"]) -> Float[Array, "N W"]:
        with jax.named_scope("attention"):
            q, k, v = self.heads(x, positions)
            mixed = attention(q, k, v, positions)
        return self.after_attention(x, mixed)

    def heads(
        self, x: Float[Array, "N W"], positions: Int[Array, "B S"]
    ) -> tuple[Float[Array, "B S H D"], Float[Array, "B S K D"], Float[Array, "B S K D"]]:
        """Queries, keys and values; queries and keys are turned to their positions."""
        h, angles = self._normed(x, self.attention_norm), rope_angles(self.config, positions.reshape(-1))
        q, k, v = (project(h, weight[...]) for weight in (self.query, self.key, self.value))

        def in_rows(x: Float[Array, "N H D"]) -> Float[Array, "B S H D"]:
            return x.reshape(*positions.shape, *x.shape[1:])

        return in_rows(rotate(q, angles)), in_rows(rotate(k, angles)), in_rows(v)

    def after_attention(self, x: Float[Array, "N W"], mixed: Float[Array, "B S H D"]) -> Float[Array, "N W"]:
        """Adds to the stream what attention mixed, then what the feed-forward makes of it."""
        with jax.named_scope("attention"):
            x = x + project(mixed.reshape(-1, *mixed.shape[2:]), self.output[...])
        with jax.named_scope("ffn"):
            h = barrier(self._normed(x, self.ffn_norm))
            gate, up = gradient_barrier((project(h, self.gate[...]), project(h, self.up[...])))
            return x + project(barrier(jax.nn.silu(gate) * up), self.down[...])

    def _normed(self, x: Float[Array, "N W"], scale: nnx.Param) -> Float[Array, "N W"]:
        return rms_norm(x, scale[...], self.config.norm_eps)


class Decoder(nnx.Module):
    """The whole network up to the final norm. Logits are `hidden @ to_logits`; loss.py never holds all of them."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        self.embedding = normal(rngs, config.init_std, vocabulary=config.vocab_size, width=config.width)
        self.layers = Layer(config, rngs)
        self.final_norm = ones(width=config.width)
        if not config.tied_head:
            self.head = normal(rngs, config.init_std, width=config.width, vocabulary=config.vocab_size)

    @property
    def to_logits(self) -> Float[Array, "W V"]:
        """The matrix that makes logits of hidden states: the head, or where it is tied, the embedding, transposed."""
        return self.embedding[...].T if self.config.tied_head else self.head[...]

    def __call__(
        self, tokens: Int[Array, "B S"], positions: Int[Array, "B S"], remat: str = "dots"
    ) -> Float[Array, "B S W"]:
        """The final-normed hidden state of each token.

        Args:
            tokens: ids, B rows of S.
            positions: of each token in its own document, from 0; a token sees its own document only.
            remat: what is kept for the backward pass, a name in REMAT.
        """
        return self.after_embedding(self.embed(tokens), positions, remat)

    def embed(self, tokens: Int[Array, "B S"]) -> Float[Array, "B S W"]:
        """The embedding's row of each token, in the compute dtype."""
        with jax.named_scope("embed"):
            return self.embedding[...][tokens].astype(self.config.dtype)

    def after_embedding(
        self, x: Float[Array, "B S W"], positions: Int[Array, "B S"], remat: str = "dots"
    ) -> Float[Array, "B S W"]:
        """What `__call__` makes of the tokens' rows of the embedding."""
        length = x.shape[1]
        if traced_for()[0] == "tpu":
            # Rows of whole tiles of tokens, or they'd be laid out anew around each kernel; what is added sees itself.
            x, positions = (_lengthened(y, -length % LANES) for y in (x, positions))

        def one_layer(x: Array, layer: Layer) -> tuple[Array, None]:
            return layer(token_by_token(x), positions), None

        step = one_layer if remat == "none" else jax.checkpoint(one_layer, prevent_cse=False, policy=REMAT[remat])
        tokens, _ = jax.lax.scan(step, x.reshape(-1, x.shape[-1]), self.layers)
        return self._final(tokens).reshape(x.shape)[:, :length]

    def _final(self, x: Float[Array, "*tokens W"]) -> Float[Array, "*tokens W"]:
        return rms_norm(x, self.final_norm[...], self.config.norm_eps)


def _lengthened(x: Array, added: int) -> Array:
    """Zeros after the second axis."""
    return jnp.pad(x, ((0, 0), (0, added), *((0, 0),) * (x.ndim - 2)))


def project(x: Float[Array, "N ..."], weight: Float[Array, "*inner_and_outer"]) -> Float[Array, "N ..."]:
    """Contracts the axes after N with the leading axes of a weight, in the dtype of `x`, as a product of two matrices.

    (With rows and their tokens apart, XLA on CPUs transposes both operands of the weight's gradient in memory, which
    doubles the time of a step. A mesh that divides tokens of rows keeps dividing them as long as it divides the rows
    down to one a device.)
    """
    inner = x.shape[1:]
    outer = weight.shape[len(inner) :]
    # For the gradient: XLA on TPUs would turn it to heads before it's summed up over the devices, and lay 160 of a head
    # out so that the sum can't be scattered.
    matrix = barrier(weight.astype(x.dtype).reshape(prod(inner), prod(outer)))
    return (x.reshape(-1, prod(inner)) @ matrix).reshape(-1, *outer)


def barrier(x: PyTree) -> PyTree:
    """The same arrays, computed once and stored, and so are their gradients.

    XLA on TPUs would fuse what makes them into each product that reads them, and compute it there again for every tile
    of the weights: a layer's feed-forward then takes up to a tenth longer (tests/benchmarks/LOG.md, 2026-11-25).
    """
    return jax.lax.optimization_barrier(x)


@jax.custom_vjp
def gradient_barrier(x: PyTree) -> PyTree:
    """A barrier for the gradients alone: what reads the arrays may be fused with what makes them."""
    return x


gradient_barrier.defvjp(lambda x: (x, None), lambda _, gradients: (barrier(gradients),))


def token_by_token(x: Float[Array, "N W"]) -> Float[Array, "N W"]:
    """The stream, with its tokens one after the other in memory, on TPUs, and so its gradients.

    Left to itself, XLA may have it so in the forward pass, the other way round in the backward one, and copy what it
    stored. (Its partitioner for TPUs alone knows that each device can see to that; for GPUs it gathers the stream.)
    """
    return with_layout_constraint(x, Layout((0, 1))) if traced_for()[0] == "tpu" else x


def rms_norm(x: Float[Array, "*tokens W"], scale: Float[Array, " W"], eps: float) -> Float[Array, "*tokens W"]:
    """Divides by the root of the mean square, in float32."""
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    return (x32 * jax.lax.rsqrt(mean_square + eps) * scale).astype(x.dtype)


def rope_angles(config: ModelConfig, positions: Int[Array, " N"]) -> Float[Array, "N half"]:
    """By how much the pairs of a head turn at each position: positions * theta^(-2i/D) for pair i, or slower.

    With `rope_scaling`, frequencies of long waves are divided by the factor, those of short ones stay, and what lies
    between is blended, as in Llama 3.1 (`apply_scaling` in llama-models, `llama3` in transformers' rope utilities).
    """
    half = config.head_size // 2
    frequencies = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if config.rope_scaling:
        factor, low, high, original = config.rope_scaling
        turns = original * frequencies / (2 * jnp.pi)  # in the context that the model was first trained for
        kept = jnp.clip((turns - low) / (high - low), 0, 1)
        frequencies = frequencies * (kept + (1 - kept) / factor)
    return positions[:, None].astype(jnp.float32) * frequencies


def rotate(x: Float[Array, "N H D"], angles: Float[Array, "N half"]) -> Float[Array, "N H D"]:
    """Rotary embedding: turns the pair (i, i + D/2) by the angle of pair i, as Hugging Face's weights want."""
    angles = angles[:, None, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return _turned(x, cos, jnp.concatenate((-sin, sin), axis=2))


@jax.custom_vjp
def _turned(x: Float[Array, "N H D"], cos: Float[Array, "N 1 1 half"], sin: Float[Array, "N 1 2 half"]) -> Array:
    """One pass over `x`, and one over its gradient, which is turned back (what XLA makes of slices takes two each)."""
    halves = x.reshape(*x.shape[:2], 2, -1)
    other = jnp.flip(halves, axis=2).astype(jnp.float32)
    return (halves.astype(jnp.float32) * cos + other * sin).astype(x.dtype).reshape(x.shape)


_turned.defvjp(
    lambda x, cos, sin: (_turned(x, cos, sin), (cos, sin)),
    lambda angles, gradient: (_turned(gradient, angles[0], -angles[1]), None, None),
)


def abstract(config: ModelConfig) -> tuple[nnx.GraphDef, Any]:
    """The decoder without its numbers, (graphdef, state of shapes and axes): restoring and compiling start from it."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0))))


def weight_axes(config: ModelConfig) -> PyTree[tuple[str, ...]]:
    """The logical axes of each weight, as its initialiser names them, in nested dictionaries."""
    _, state = abstract(config)
    is_weight = lambda leaf: isinstance(leaf, nnx.Variable)  # noqa: E731
    return nnx.to_pure_dict(jax.tree.map(lambda weight: weight.get_metadata()["axes"], state, is_leaf=is_weight))
