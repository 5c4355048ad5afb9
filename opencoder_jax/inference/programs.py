"""What runs on the device: reading a prompt, drawing tokens, and copying rows of the cache.

The device holds the weights and the cache, and nothing else between two calls: the host knows every token, so it hands
in what the rows are, which is little. All shapes but the cache's are fixed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

from opencoder_jax.inference.sampling import Settings, draw, penalised
from opencoder_jax.kernels.attention.rows import jit_by_rows
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoding import Alike, Cache, Weights, extend, logits

STEPS = 16  # most steps of one call
COPIED = 128  # slots of a row that are copied at once
MOST_LIKELY = 20  # likeliest tokens that can be asked for in a token's place


class RowStates(NamedTuple):
    """Where each row stands. Its last known token hasn't been read yet: that is what a step begins with."""

    history: Int[Array, "R T"]  # the tokens of prompt and answer
    last: Int[Array, " R"]  # where its last known token stands
    left: Int[Array, " R"]  # tokens that it may still draw; 0: it is idle
    settings: Settings
    random: UInt[Array, "R N"]  # the random numbers of its next tokens
    alike: Alike


class Likely(NamedTuple):
    """Log-probabilities in a place: of its token, and of the likeliest ones."""

    token: Float[Array, "..."]
    top: Float[Array, "... 20"]
    tops: Int[Array, "... 20"]  # which they are


class Drawn(NamedTuple):
    """What some steps have drawn: in step i, row r drew the first counts[i, r] of tokens[i, r]."""

    tokens: Int[Array, "N R S"]
    counts: Int[Array, "N R"]
    likely: Likely  # of them; zeros unless asked for


@jit_by_rows(static_argnames="config", donate_argnames="cache")
def read(
    weights: Weights,
    cache: Cache,
    tokens: Int[Array, " S"],
    before: Int[Array, ""],
    count: Int[Array, ""],
    row: Int[Array, ""],
    config: ModelConfig,
) -> Cache:
    """Reads `count` tokens of a row, behind the `before` that it has read."""
    return extend(weights, config, cache, tokens[None], before[None], count[None], row, wanted=False)[1]


@jit_by_rows(static_argnames="config", donate_argnames="cache")
def read_and_rate(
    weights: Weights,
    cache: Cache,
    tokens: Int[Array, " S"],
    following: Int[Array, " S"],
    before: Int[Array, ""],
    count: Int[Array, ""],
    row: Int[Array, ""],
    config: ModelConfig,
) -> tuple[Cache, Likely]:
    """As `read`; and how likely after each token the one was that follows it."""
    hidden, cache = extend(weights, config, cache, tokens[None], before[None], count[None], row)
    return cache, rated(logits(weights, hidden[0]), following)


@jit_by_rows(donate_argnames="cache")
def copy(cache: Cache, copies: Int[Array, "3 R"], number: Int[Array, ""]) -> Cache:
    """Copies what rows have read, one after the other: so many times a source, a target, and the number of tokens."""
    sizes = (1, cache.keys[0].shape[1], COPIED, cache.keys[0].shape[3])

    def one(index: Array, cache: Cache) -> Cache:
        source, target, tokens = copies[:, index]

        def block(index: Array, cache: Cache) -> Cache:
            def copied(each: Array) -> Array:
                part = jax.lax.dynamic_slice(each, (source, 0, index * COPIED, 0), sizes)
                return jax.lax.dynamic_update_slice(each, part, (target, 0, index * COPIED, 0))

            return jax.tree.map(copied, cache)

        return jax.lax.fori_loop(0, -(-tokens // COPIED), block, cache)

    return jax.lax.fori_loop(0, number, one, cache)


@jit_by_rows(static_argnames="slots")
def resize(cache: Cache, rows: Int[Array, " R"], slots: int) -> Cache:
    """A cache of these rows of another, with more slots or fewer."""

    def resized(each: Array) -> Array:
        each = each[rows, :, :slots]
        return jnp.pad(each, ((0, 0), (0, 0), (0, slots - each.shape[2]), (0, 0)))

    return jax.tree.map(resized, cache)


@jit_by_rows(static_argnames=("config", "ends", "draft"), donate_argnames="cache")
def answer(
    weights: Weights,
    cache: Cache,
    rows: RowStates,
    steps: Int[Array, ""],
    rate: Bool[Array, ""],
    until_one_ends: Bool[Array, ""],
    config: ModelConfig,
    ends: tuple[int, ...],
    draft: int,
) -> tuple[Cache, Drawn]:
    """Draws tokens of all rows.

    Args:
        steps: at most so many, at most STEPS; fewer when no row has any left to draw.
        rate: whether log-probabilities are wanted.
        until_one_ends: leaves off as soon as a row has drawn its last token: another prompt waits for its place.
        ends: tokens that end an answer.
        draft: tokens that a step guesses and reads at once, besides the one that is known.
    """
    count = len(rows.last)
    width = 1 + draft
    began = rows.left > 0
    empty = Drawn(
        jnp.zeros((STEPS, count, width), jnp.int32),
        jnp.zeros((STEPS, count), jnp.int32),
        _nothing((STEPS, count, width)),
    )

    def goes_on(state: tuple[Array, Cache, RowStates, Drawn]) -> Array:
        step, _, now, _ = state
        running = now.left > 0
        leave = until_one_ends & jnp.any(began & ~running)
        return (step < steps) & jnp.any(running) & ~leave

    def one(state: tuple[Array, Cache, RowStates, Drawn]) -> tuple[Array, Cache, RowStates, Drawn]:
        step, cache, now, out = state
        known = jnp.take_along_axis(now.history, now.last[:, None], axis=1)
        guessed = guesses(now.history, now.last, draft)
        tokens = jnp.concatenate([known, guessed], axis=1)
        running = now.left > 0
        counts = jnp.where(running, width, 0)
        hidden, cache = extend(weights, config, cache, tokens, now.last, counts, alike=now.alike)
        made = logits(weights, hidden.reshape(count * width, -1), jnp.repeat(running, width))
        of_each = jax.tree.map(lambda setting: jnp.repeat(setting, width, axis=0), now.settings)
        places = (now.last - rows.last)[:, None] + jnp.arange(width)
        random = jnp.take_along_axis(now.random, places, axis=1).reshape(-1)
        lowered = penalised(made, of_each, lambda: jnp.repeat(_seen(now, config.vocab_size), width, axis=0))
        chosen = draw(lowered, of_each, random).reshape(count, width)

        # The first token is right; each further one if what it was drawn behind was guessed right, and didn't end.
        right = (chosen[:, :-1] == guessed) & (now.settings.repetition_penalty == 1)[:, None]
        last = jnp.isin(chosen, jnp.asarray(ends, jnp.int32))
        valid = jnp.cumprod(jnp.pad(right & ~last[:, :-1], ((0, 0), (1, 0)), constant_values=True), axis=1)
        new = jnp.minimum(valid.sum(axis=1), now.left)
        ended = jnp.any(last & (jnp.arange(width) < new[:, None]), axis=1)
        where = jnp.where(jnp.arange(width) < new[:, None], now.last[:, None] + 1 + jnp.arange(width), cache.slots)
        history = now.history.at[jnp.arange(count)[:, None], where].set(chosen, mode="drop", unique_indices=True)
        left = jnp.where(ended, 0, now.left - new)

        flat = jax.lax.cond(rate, lambda: rated(made, chosen.reshape(-1)), lambda: _nothing((count * width,)))
        likely = jax.tree.map(lambda each: each.reshape(count, width, *each.shape[1:]), flat)
        out = jax.tree.map(lambda all_, one: all_.at[step].set(one), out, Drawn(chosen, new, likely))
        return step + 1, cache, now._replace(history=history, last=now.last + new, left=left), out

    _, cache, _, out = jax.lax.while_loop(goes_on, one, (jnp.int32(0), cache, rows, empty))
    return cache, out


def guesses(history: Int[Array, "R T"], last: Int[Array, " R"], draft: int) -> Int[Array, "R draft"]:
    """Tokens that may come next: those behind the last place where the row had its last three tokens, or two, or one.

    Prompt lookup (github.com/apoorvumang/prompt-lookup-decoding): code repeats itself, and edits repeat their prompt.
    """
    if not draft:
        return jnp.zeros((len(last), 0), jnp.int32)
    slots = jnp.arange(history.shape[1])
    score, same = jnp.zeros(history.shape, jnp.int32), jnp.ones(history.shape, bool)
    for length in range(3):
        ending = jnp.take_along_axis(history, jnp.maximum(last - length, 0)[:, None], axis=1)
        same = same & (jnp.roll(history, length, axis=1) == ending) & (slots >= length)
        score = score + same
    place = jnp.argmax(jnp.where(slots < last[:, None], score * len(slots) + slots, -1), axis=1)
    # Behind the row's end it goes on as it did since that place.
    period = jnp.maximum(last - place, 1)
    ahead = place[:, None] + 1 + jnp.arange(draft) % period[:, None]
    return jnp.take_along_axis(history, ahead, axis=1)


def rated(made: Float[Array, "N V"], tokens: Int[Array, " N"]) -> Likely:
    """The log-probabilities of tokens and of the likeliest ones."""
    all_ = made - jax.nn.logsumexp(made, axis=-1, keepdims=True)
    top, tops = jax.lax.top_k(all_, min(MOST_LIKELY, made.shape[1]))
    return Likely(jnp.take_along_axis(all_, tokens[:, None], axis=1)[:, 0], top, tops)


def _nothing(shape: tuple[int, ...]) -> Likely:
    tops = (*shape, MOST_LIKELY)
    return Likely(jnp.zeros(shape), jnp.zeros(tops), jnp.zeros(tops, jnp.int32))


def _seen(rows: RowStates, vocabulary: int) -> Bool[Array, "R V"]:
    """Which tokens each row has."""
    count, slots = rows.history.shape
    tokens = jnp.where(jnp.arange(slots) <= rows.last[:, None], rows.history, vocabulary)
    return jnp.zeros((count, vocabulary), bool).at[jnp.arange(count)[:, None], tokens].set(True, mode="drop")
