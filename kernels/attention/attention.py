"""The one attention of the project: causal, grouped heads, packed documents, and a cache of keys to go on from.

Training, prefilling a prompt and decoding a token are the same call, so they cannot come to disagree.

Which program computes it is chosen while tracing. It depends on the device of the mesh (`jax.set_mesh`), or else of the
default backend:

    TPU         tpu/          Pallas kernels for Mosaic; tpu/decode.py for one new token
    GPU         gpu/triton/   Pallas kernels for Triton
                gpu/hopper/   Pallas kernels for Mosaic GPU, on Hopper, only if asked for by name
    elsewhere   reference.py  the plain formula, compiled by XLA

Under a mesh the kernels run in a `jax.shard_map` over rows, queries and heads; each part sees all keys of its rows.
"""

import functools
import math
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float, Int

from opencoder_jax.kernels.attention import reference
from opencoder_jax.kernels.attention.gpu import blocks as gpu_blocks
from opencoder_jax.kernels.attention.tpu import attention as tpu
from opencoder_jax.kernels.attention.tpu import blocks as tpu_blocks
from opencoder_jax.kernels.attention.tpu import decode, segments

# The platform of each implementation; the reference runs on all of them.
IMPLEMENTATIONS = {"reference": None, "tpu": "tpu", "gpu": "gpu", "hopper": "gpu"}
# The axes of a mesh that divide rows, queries and heads (opencoder_jax/parallel/mesh.py says what they are).
ROWS, QUERIES, HEADS = ("replica", "fsdp"), "context", "tensor"


def attention(
    q: Float[Array, "B S H D"],
    k: Float[Array, "B T K D"],
    v: Float[Array, "B T K D"],
    positions: Int[Array, "B S"],
    slot: int | Int[Array, ""] = 0,
    implementation: str | None = None,
) -> Float[Array, "B S H D"]:
    """Causal attention within documents; heads h * H/K to (h + 1) * H/K - 1 of `q` share head h of `k` and `v`.

    Args:
        q: queries, not scaled (scores are divided by sqrt(D) here).
        k: keys, one a slot. In training T = S; in decoding T is the size of the cache.
        v: values.
        positions: of each query in its own document, counted from 0.
        slot: the slot of the first query: query i stands at slot + i, and sees the slots
            from slot + i - positions[i], where its document starts, to its own.
        implementation: "reference", "tpu", "gpu" (Triton) or "hopper" (Mosaic GPU). None: our kernels on TPUs, and
            through Triton on GPUs, if they can do what is asked, else the reference. Where a TPU or GPU gets the
            reference after all, standard error says so once.

    Returns:
        The weighted sum of values for each query, in the dtype of `v`. The softmax is float32.

    Raises:
        ValueError: the shapes don't fit together, or the implementation that was asked for can't do this.
    """
    batch, length, heads, head_size = q.shape
    if k.shape != v.shape or k.shape[0] != batch or k.shape[3] != head_size or k.shape[1] < length:
        raise ValueError(f"attention: q {q.shape}, k {k.shape} and v {v.shape} don't fit together")
    if heads % k.shape[2]:
        raise ValueError(f"attention: {heads} query heads cannot share {k.shape[2]} key heads evenly")
    if positions.shape != (batch, length):
        raise ValueError(f"attention: positions {positions.shape} must have the shape {(batch, length)}")
    if implementation not in (None, *IMPLEMENTATIONS):
        raise ValueError(f"attention: implementation {implementation!r} is none of {', '.join(IMPLEMENTATIONS)}")

    platform, chip = traced_for()
    if implementation and IMPLEMENTATIONS[implementation] not in (None, platform):
        raise ValueError(f"attention: the kernels of implementation {implementation!r} don't run on {chip}")
    name = implementation or (platform if platform in IMPLEMENTATIONS else "reference")
    why = None if name == "reference" else _why_not(name, chip, q, k, v)
    if why and implementation:
        raise ValueError(f"attention: {why}")
    if why:
        _say_once(f"attention: the reference runs on {chip}, not the kernel: {why}")
    if why or name == "reference":
        return reference.attention(q, k, v, positions, slot)
    return _over_mesh(_kernel(name, chip, q, k), q, k, v, positions, slot)


def traced_for() -> tuple[str, str]:
    """Platform and kind of the devices that the program is traced for: the mesh's, or else the default backend's."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None:
        return device.platform, device.device_kind
    return jax.default_backend(), jax.devices()[0].device_kind


def _why_not(name: str, chip: str, q: Array, k: Array, v: Array) -> str | None:
    """What an implementation's kernels can't do, in words."""
    dtypes = {str(x.dtype) for x in (q, k, v)}
    takes = ("bfloat16", "float16") if name == "hopper" else ("bfloat16", "float32")
    if len(dtypes) > 1 or not dtypes <= set(takes):
        return f"its operands are all {takes[0]} or all {takes[1]}, not {', '.join(sorted(dtypes))}"
    multiple = 8 if name == "tpu" else 16
    if q.shape[3] > 256 or q.shape[3] % multiple:
        return f"its head sizes are multiples of {multiple} up to 256, not {q.shape[3]}"
    if name != "tpu" and q.shape[1] == 1:
        return "it takes blocks of 16 queries or more, which one new token would leave empty"
    if name == "tpu" and q.shape[1] > 1:
        group, size = q.shape[2] // k.shape[2], q.shape[3]
        blocks = tpu_blocks.fitted(tpu_blocks.blocks_for(chip, size, group), group, q.shape[1], k.shape[1])
        return segments.why_not(blocks, group, size, q.dtype.itemsize)
    if name == "hopper" and gpu_blocks.family_of(chip) != "Hopper":
        return f"its kernels are for Hopper, not {chip}"
    return None


def _kernel(name: str, chip: str, q: Array, k: Array) -> Callable[..., Array]:
    """An implementation's kernel for one device. What only GPUs take is loaded only for them: it's slow to import."""
    if name == "hopper":
        from opencoder_jax.kernels.attention.gpu.hopper import attention as hopper

        return functools.partial(hopper.attention, blocks=gpu_blocks.hopper_blocks(q.shape[3]))
    if name == "gpu":
        from opencoder_jax.kernels.attention.gpu.triton import attention as triton

        return functools.partial(triton.attention, blocks=gpu_blocks.triton_blocks(chip, q.shape[3], q.dtype))
    if q.shape[1] == 1:
        return decode.attention
    return functools.partial(tpu.attention, blocks=tpu_blocks.blocks_for(chip, q.shape[3], q.shape[2] // k.shape[2]))


@functools.cache
def _say_once(words: str) -> None:
    print(words, file=sys.stderr)


def _over_mesh(
    kernel: Callable[..., Array], q: Array, k: Array, v: Array, positions: Array, slot: int | Array
) -> Array:
    """Runs a kernel on each device's part of the rows, queries and heads.

    An axis of the mesh that doesn't divide its axis of the arrays divides nothing: its devices all compute the same.
    (A part of the queries computes from its own slot; all parts take equally many queries, so the last has most to do.)
    """
    if not (free := free_axes()):
        return kernel(q, k, v, positions, slot)
    rows = dividing(free, ROWS, q.shape[0])
    queries = dividing(free, (QUERIES,), q.shape[1])
    heads = dividing(free, (HEADS,), q.shape[2], k.shape[2])

    def part(q: Array, k: Array, v: Array, positions: Array, slot: Array) -> Array:
        if queries is not None:
            slot = slot + jax.lax.axis_index(QUERIES) * q.shape[1]
            if traced_for()[0] == "tpu":
                # [B, K, T, D] in memory, as their gradients: only then does XLA scatter the gradients' sums by tokens.
                k, v = (with_layout_constraint(x, Layout((0, 2, 1, 3))) for x in (k, v))
        return kernel(q, k, v, positions, slot)

    of_queries, of_keys = PartitionSpec(rows, queries, heads), PartitionSpec(rows, None, heads)
    return jax.shard_map(
        part,
        in_specs=(of_queries, of_keys, of_keys, PartitionSpec(rows, queries), PartitionSpec()),
        out_specs=of_queries,
        axis_names=set(free),
        check_vma=False,
    )(q, k, v, positions, jnp.asarray(slot, jnp.int32))


def free_axes() -> dict[str, int]:
    """The sizes of the mesh's axes that a `shard_map` can still take; none where all of them are 1."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
    free = {name: size for name, size, kind in axes if kind != AxisType.Manual}
    return free if any(size > 1 for size in free.values()) else {}


def dividing(free: dict[str, int], axes: tuple[str, ...], *sizes: int) -> tuple[str, ...] | None:
    """Of some axes of the mesh those that are free, if together they divide all sizes."""
    axes = tuple(axis for axis in axes if axis in free)
    parts = math.prod(free[axis] for axis in axes)
    return axes if axes and all(size % parts == 0 for size in sizes) else None
