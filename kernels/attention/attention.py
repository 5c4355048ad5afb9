"""The one attention of the project: causal, grouped heads, documents packed in a row, a cache of keys to go on from.

Training, prefilling a prompt and decoding a token are the same call, so that they cannot come to disagree.
"""

from jaxtyping import Array, Float, Int

from kernels.attention import reference


def attention(
    q: Float[Array, "B S H D"],
    k: Float[Array, "B T K D"],
    v: Float[Array, "B T K D"],
    positions: Int[Array, "B S"],
    slot: int | Int[Array, ""] = 0,
) -> Float[Array, "B S H D"]:
    """Causal attention within documents; heads h * H/K to (h + 1) * H/K - 1 of `q` share head h of `k` and `v`.

    Args:
        q: queries, not scaled (scores are divided by sqrt(D) here).
        k: keys, one a slot. In training T = S; in decoding T is the size of the cache.
        v: values.
        positions: of each query in its own document, counted from 0.
        slot: the slot of the first query: query i stands at slot + i, and sees the slots
            from slot + i - positions[i], where its document starts, to its own.

    Returns:
        The mix of values for each query, in the dtype of `v`. The softmax is float32.

    Raises:
        ValueError: shapes don't fit together.
    """
    batch, length, heads, head_size = q.shape
    if k.shape != v.shape or k.shape[0] != batch or k.shape[3] != head_size or k.shape[1] < length:
        raise ValueError(f"attention: q {q.shape}, k {k.shape} and v {v.shape} don't fit together")
    if heads % k.shape[2]:
        raise ValueError(f"attention: {heads} query heads cannot share {k.shape[2]} key heads evenly")
    if positions.shape != (batch, length):
        raise ValueError(f"attention: positions {positions.shape} must have the shape {(batch, length)}")
    return reference.attention(q, k, v, positions, slot)
