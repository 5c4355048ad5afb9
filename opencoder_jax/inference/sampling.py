"""How the next token is chosen: a function of the row's logits, its settings and a random number, of no other row.

All settings are arrays with one value a row, so that each request has its own and none is compiled anew. Probabilities
are rounded to multiples of 2**-30 and counted as integers: sums of integers don't depend on their order, and what a
filter keeps is all from some probability up, which is found by halving and without a sort.

Random numbers are drawn on the host: the n-th of an answer is the n-th of Philox (Salmon et al. 2011), whose key is the
seeds of the configuration and of the request.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from opencoder_jax.checks import Requirement, above, at_least, between, check
from opencoder_jax.recipe import configurable

ONE = 1 << 30  # the probability 1
_BLOCK = 256  # tokens that are summed up first


@configurable
@dataclass(frozen=True)
class SamplingConfig:
    """What is drawn. Of the likeliest tokens, top_k, top_p and min_p leave so many in turn.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token always (greedy).
        top_k: draws from so many likeliest tokens; 0 from all.
        top_p: draws from the likeliest tokens that together have this probability; 1 from all.
        min_p: leaves out tokens less likely than this share of the likeliest one's probability.
        repetition_penalty: divides the logits, where they are above 0, of tokens that the prompt or the answer has, and
            multiplies them where they are below (arXiv 1909.05858, section 4.1); 1 does nothing.
        max_tokens: of an answer.
        seed: of all draws.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        share = Requirement(lambda value: 0 < value <= 1, "above 0 and at most 1")
        check(self, temperature=at_least(0), top_k=at_least(0), top_p=share, min_p=between(0, 1))
        check(self, repetition_penalty=above(0), max_tokens=at_least(1), seed=between(0, 2**32 - 1))


class Settings(NamedTuple):
    """The settings of each row."""

    temperature: Float[Array, " R"]
    top_k: Int[Array, " R"]
    top_p: Float[Array, " R"]
    min_p: Float[Array, " R"]
    repetition_penalty: Float[Array, " R"]


def random_numbers(seed: int, request_seed: int, count: int) -> np.ndarray:
    """The first random numbers of an answer, uint32 in 0 .. 2**30 - 1."""
    return (np.random.Philox(key=[seed, request_seed]).random_raw(count) >> 34).astype(np.uint32)


def penalised(
    logits: Float[Array, "R V"], settings: Settings, seen: Callable[[], Bool[Array, "R V"]]
) -> Float[Array, "R V"]:
    """The logits after the repetition penalty; `seen` says which tokens a row has, and is called where one has any."""
    penalty = settings.repetition_penalty[:, None]

    def apply() -> Array:
        lower = jnp.where(logits > 0, logits / penalty, logits * penalty)
        return jnp.where(seen() & (penalty != 1), lower, logits)

    return jax.lax.cond(jnp.any(penalty != 1), apply, lambda: logits)


def draw(logits: Float[Array, "R V"], settings: Settings, random: UInt[Array, " R"]) -> Int[Array, " R"]:
    """The next token of each row, of its random number in 0 .. 2**30 - 1."""
    greedy = jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def drawn() -> Array:
        warm = jnp.where(settings.temperature > 0, settings.temperature, 1)
        probabilities = jax.nn.softmax(logits / warm[:, None])
        masses = jnp.round(probabilities * ONE).astype(jnp.int32)
        kept = jnp.where(masses >= least_kept(masses, settings)[:, None], masses, 0)
        return jnp.where(settings.temperature > 0, _at_random(kept, random), greedy)

    return jax.lax.cond(jnp.any(settings.temperature > 0), drawn, lambda: greedy)


def least_kept(masses: Int[Array, "R V"], settings: Settings) -> Int[Array, " R"]:
    """The least probability, in 2**-30, that a row draws from; tokens as likely as the last that is kept are kept."""

    def likeliest() -> Array:
        wanted = jnp.where(settings.top_k > 0, settings.top_k, masses.shape[1])
        return _greatest(lambda least: jnp.sum(masses >= least[:, None], axis=-1) >= wanted, len(masses))

    def nucleus() -> Array:
        candidates = jnp.where(masses >= by_count[:, None], masses, 0)
        enough = jnp.maximum((settings.top_p * candidates.sum(axis=-1)).astype(jnp.int32), 1)

        def holds(least: Array) -> Array:
            return jnp.sum(jnp.where(masses >= least[:, None], candidates, 0), axis=-1) >= enough

        return jnp.where(settings.top_p < 1, _greatest(holds, len(masses)), 0)

    none = jnp.zeros(len(masses), jnp.int32)
    by_count = jax.lax.cond(jnp.any(settings.top_k > 0), likeliest, lambda: none)
    by_sum = jax.lax.cond(jnp.any(settings.top_p < 1), nucleus, lambda: none)
    by_share = (settings.min_p * masses.max(axis=-1)).astype(jnp.int32)
    return jnp.maximum(jnp.maximum(by_count, by_sum), jnp.maximum(by_share, 1))


def _greatest(holds: Callable[[Array], Array], rows: int) -> Int[Array, " R"]:
    """The greatest probability at which what `holds` at 0 still holds, for each row."""

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        held = holds(middle)
        return jnp.where(held, middle, low), jnp.where(held, high, middle)

    low, _ = jax.lax.fori_loop(0, 31, halve, (jnp.zeros(rows, jnp.int32), jnp.full(rows, ONE + 1, jnp.int32)))
    return low


def _at_random(masses: Int[Array, "R V"], random: UInt[Array, " R"]) -> Int[Array, " R"]:
    """A token of each row, as often as its share of the row's sum."""
    blocks = jnp.pad(masses, ((0, 0), (0, -masses.shape[1] % _BLOCK))).reshape(len(masses), -1, _BLOCK)
    ends = jnp.cumsum(blocks.sum(axis=-1), axis=-1)
    # random * total / 2**30, rounded down, from halves of 15 bits: in [0, total).
    total, low = ends[:, -1].astype(jnp.uint32), jnp.uint32((1 << 15) - 1)
    cross = (total >> 15) * (random & low) + (total & low) * (random >> 15)
    height = ((total >> 15) * (random >> 15) + (cross >> 15)).astype(jnp.int32)
    block = jnp.argmax(ends > height[:, None], axis=-1)
    chosen = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    before = jnp.take_along_axis(ends, block[:, None], axis=1)[:, 0] - chosen.sum(axis=-1)
    within = jnp.argmax(jnp.cumsum(chosen, axis=-1) > (height - before)[:, None], axis=-1)
    return (block * _BLOCK + within).astype(jnp.int32)
