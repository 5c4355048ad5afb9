"""How the next token is chosen: a pure function of the logits, the seeds and the length of the answer so far.

So an answer doesn't depend on what else is answered at the same time, nor on how often one was interrupted.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class SamplingConfig:
    """What is drawn.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token always (greedy).
        top_p: draws from the likeliest tokens that together have this probability; 1 from all.
        max_tokens: of an answer.
        seed: of all draws.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature}: can't be below 0, which is greedy")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: must lie in (0, 1]")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens}: must be 1 or more")


def choose(
    logits: Float[Array, "B V"], config: SamplingConfig, seeds: Int[Array, " B"], length: Int[Array, ""]
) -> Int[Array, " B"]:
    """The next token of each row.

    Args:
        seeds: of the rows, folded into the seed of the configuration.
        length: tokens that the answers have so far.
    """
    if config.temperature == 0:
        return jnp.argmax(logits, axis=-1)
    seed = jax.random.key(config.seed)
    keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(seed, row), length))(seeds)
    return jax.vmap(jax.random.categorical)(keys, nucleus(logits / config.temperature, config.top_p))


def nucleus(logits: Float[Array, "B V"], top_p: float) -> Float[Array, "B V"]:
    """Puts all but the likeliest tokens, which together have probability `top_p` at least, out of reach."""
    if top_p == 1:
        return logits
    descending = jnp.sort(logits, axis=-1)[:, ::-1]
    before = jnp.cumsum(jax.nn.softmax(descending, axis=-1), axis=-1) - jax.nn.softmax(descending, axis=-1)
    least = jnp.min(jnp.where(before < top_p, descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)
