"""A guard against loss spikes: an update that stands far out of those before it is left out, and counted.

Data that a model can't make sense of, or a flipped bit, gives a batch whose loss or gradient is many times the usual
one, and the update can throw a run back by thousands of steps. The guard remembers loss and gradient norm of the last
WINDOW updates; where either lies more than `limit` standard deviations above its mean, or is no number, the weights and
moments stay as they are. The decision is made on the devices, is part of the state, and so of every checkpoint: a run
that is stopped and goes on leaves out the same updates.

(OLMo's trainer guards so with 128 updates and 6 standard deviations; the paper of OpenCoder doesn't mention any guard.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

WINDOW = 128
# A run that leaves out so many updates one after the other is lost, and stops.
PATIENCE = 16


class SpikeState(NamedTuple):
    """What the guard remembers."""

    seen: Int[Array, ""]  # updates that weren't left out
    skipped: Int[Array, ""]  # updates that were, in all
    in_a_row: Int[Array, ""]  # updates that were, since the last that wasn't
    losses: Float[Array, " WINDOW"]  # of the last that weren't, a ring
    norms: Float[Array, " WINDOW"]
    inner: optax.OptState


def skip_spikes(inner: optax.GradientTransformation, limit: float) -> optax.GradientTransformationExtraArgs:
    """The transformation `inner`, without the updates that stand out. `update` wants `loss=` and `norm=` besides.

    Args:
        limit: standard deviations above the mean.
    """

    def init(parameters: PyTree) -> SpikeState:
        none, ring = jnp.zeros((), jnp.int32), jnp.zeros(WINDOW, jnp.float32)
        return SpikeState(none, none, none, ring, ring, inner.init(parameters))

    def update(
        updates: PyTree,
        state: SpikeState,
        parameters: PyTree = None,
        *,
        loss: Float[Array, ""],
        norm: Float[Array, ""],
        **_: object,
    ) -> tuple[PyTree, SpikeState]:
        stands_out = _stands_out(state.losses, loss, limit) | _stands_out(state.norms, norm, limit)
        broken = ~(jnp.isfinite(loss) & jnp.isfinite(norm))
        skip = broken | ((state.seen >= WINDOW) & stands_out)
        made, after = inner.update(updates, state.inner, parameters)
        index = jnp.arange(WINDOW) == state.seen % WINDOW
        kept = jnp.int32(1) - skip
        return jax.tree.map(lambda x: jnp.where(skip, 0, x), made), SpikeState(
            state.seen + kept,
            state.skipped + skip,
            jnp.where(skip, state.in_a_row + 1, 0),
            jnp.where(index & ~skip, loss, state.losses),
            jnp.where(index & ~skip, norm, state.norms),
            jax.tree.map(lambda old, new: jnp.where(skip, old, new), state.inner, after),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _stands_out(ring: Float[Array, " WINDOW"], value: Float[Array, ""], limit: float) -> Bool[Array, ""]:
    return value > jnp.mean(ring) + limit * jnp.std(ring)
