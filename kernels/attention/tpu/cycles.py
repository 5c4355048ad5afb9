"""How many cycles the TPU kernels take for a row of documents, by the compiler's schedule. Needs no TPU.

Every body of a kernel counts as often as it runs for those documents; the ranges of the loops come from the code that
the kernels themselves use. An estimate, not a measurement: nothing here waits for memory. Cycles are of one row and one
query head.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from opencoder_jax.kernels.attention.shared.bounds import bounds_of, visible_blocks
from opencoder_jax.kernels.attention.tpu.attention import attention
from opencoder_jax.kernels.attention.tpu.blocks import BackwardBlocks, ForwardBlocks, blocks_for
from opencoder_jax.kernels.attention.tpu.ranges import key_ranges, query_ranges
from opencoder_jax.kernels.schedule import MATRIX, Body, Schedule, schedules

# Chips by the names of their topologies: the smallest one, and the kind that a device of it has.
TOPOLOGIES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
KINDS = {"v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5", "v6e": "TPU v6 lite"}
SMALL = 100  # cycles; a body below that runs at every step of the grid


class Cycles(NamedTuple):
    """Cycles of one row and one query head."""

    forward: float
    backward: float


def devices_of(chip: str) -> list[jax.Device]:
    """The chips of the smallest topology, which needn't be there."""
    options = {"chip_config_name": "megacore"} if chip == "v4" else {}
    return topologies.get_topology_desc(TOPOLOGIES[chip], platform="tpu", **options).devices


def abstract(chip: str, *shapes: tuple[tuple[int, ...], Any]) -> list[jax.ShapeDtypeStruct]:
    """Arrays of these shapes and dtypes on one chip that needn't be there."""
    sharding = SingleDeviceSharding(devices_of(chip)[0])
    return [jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for shape, dtype in shapes]


def program(
    chip: str, length: int, group: int, size: int, forward: dict[str, Any], backward: dict[str, Any]
) -> tuple[Callable[..., Any], list[jax.ShapeDtypeStruct]]:
    """What `compiled` compiles: forward and backward of one row and one key head with `group` query heads."""
    chosen = blocks_for(KINDS[chip], size, group)
    chosen = chosen._replace(forward=ForwardBlocks(**forward), backward=BackwardBlocks(**backward))

    def both(q: Any, k: Any, v: Any, positions: Any, d_out: Any) -> Any:
        out, back = jax.vjp(lambda *x: attention(x[0], x[1], x[2], positions, blocks=chosen), q, k, v)
        return out, back(d_out)

    q, k = ((1, length, group, size), jnp.bfloat16), ((1, length, 1, size), jnp.bfloat16)
    return both, abstract(chip, q, k, k, ((1, length), jnp.int32), q)


def compiled(
    chip: str, group: int, size: int, forward: ForwardBlocks, backward: BackwardBlocks, length: int = 4096
) -> tuple[Schedule, Schedule]:
    """The schedules of both kernels. A row's length changes how often bodies run, not what is in them.

    Raises:
        RuntimeError: they don't compile, for want of VMEM for instance.
    """
    arguments = {"chip": chip, "length": length, "group": group, "size": size}
    arguments |= {"forward": forward._asdict(), "backward": backward._asdict()}
    one, other = schedules("opencoder_jax.kernels.attention.tpu.cycles:program", arguments, "attention_")
    return one, other


def estimate(
    compiled: tuple[Schedule, Schedule],
    group: int,
    forward: ForwardBlocks,
    backward: BackwardBlocks,
    positions: np.ndarray,
) -> Cycles:
    """Cycles for a row [1, S] of positions, S a multiple of the block sizes."""
    length = positions.shape[1]
    bounds = bounds_of(jnp.asarray(positions), 0)

    *tiles, whole = compiled[0].products()
    tokens = forward.rows // group
    ranges = np.asarray(key_ranges(bounds, tokens, forward, length)).reshape(-1, 6)
    seen, _ = visible(positions, min(forward.edge_queries, tokens), forward.edge)
    masked = 0
    for rows, (begin, cut, _, _, tail, end) in zip(np.split(seen, len(ranges)), ranges, strict=True):
        masked += int(rows[:, begin:cut].sum() + rows[:, tail:end].sum())
    before, after, small = around(compiled[0])
    ahead = len(ranges) * (total(before) + total(after) + small)
    per_block = max(1, tokens // forward.edge_queries)  # a step has as many tiles at each head, or one for all heads
    ahead += masked * total(tiles) / per_block + (ranges[:, 3] - ranges[:, 2]).sum() * whole.cycles

    *tiles, whole = compiled[1].products()
    ranges = np.asarray(query_ranges(bounds, backward, length)).reshape(-1, 6)
    seen, _ = visible(positions, backward.edge_queries, backward.edge_keys)
    per_block = backward.keys // backward.edge_keys
    masked = 0
    for block, (begin, cut, _, _, tail, end) in enumerate(ranges):
        columns = seen[:, block * per_block : (block + 1) * per_block]
        masked += int(columns[begin:cut].sum() + columns[tail:end].sum())
    before, after, small = around(compiled[1])
    # The first body clears a head's sum for queries, and the one after the products writes it; the last one before them
    # transposes a block's keys and values for a head; the others belong to blocks of keys, which a group's heads share.
    back = float(total(before[:1]) + total(after[:1]) + len(ranges) * (total(before[-1:]) + small))
    back += len(ranges) * (total(before[1:-1]) + total(after[1:])) / group
    back += masked * total(tiles) / len(tiles) + (ranges[:, 3] - ranges[:, 2]).sum() * whole.cycles
    return Cycles(float(ahead / group), float(back))


def documents(length: int, count: int) -> np.ndarray:
    """Positions [1, length] of a row of `count` documents of about equal lengths."""
    ends = np.linspace(0, length, count + 1).astype(int)
    return np.concatenate([np.arange(n) for n in np.diff(ends)])[None].astype(np.int32)


def visible(positions: np.ndarray, queries: int, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Which blocks [S / queries, S / keys] of a row hold pairs that see each other, and which hold only such pairs."""
    some, every = visible_blocks(bounds_of(jnp.asarray(positions), 0), queries, keys, positions.shape[1])
    return np.asarray(some[0]), np.asarray(every[0])


def around(schedule: Schedule) -> tuple[list[Body], list[Body], int]:
    """The larger bodies before and after those that multiply matrices, and the cycles of all small ones."""
    products = [i for i, body in enumerate(schedule.bodies) if body.used[MATRIX]]
    others = [(i, body) for i, body in enumerate(schedule.bodies) if not body.used[MATRIX]]
    before = [body for i, body in others if i < products[0] and body.cycles >= SMALL]
    after = [body for i, body in others if i > products[-1] and body.cycles >= SMALL]
    return before, after, sum(body.cycles for _, body in others if body.cycles < SMALL)


def total(bodies: Sequence[Body]) -> int:
    """Cycles of bodies that each run once."""
    return sum(body.cycles for body in bodies)
