"""How many cycles the TPU kernels take for a row of documents, by the compiler's schedule. Needs no TPU.

Every body of a kernel counts as often as it runs for those documents; the ranges of the kernels' loops come from the
code that the kernels themselves use. An estimate, not a measurement: nothing here waits for memory. Cycles are of one
row and one head of the queries.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from opencoder_jax.kernels.attention import tpu
from opencoder_jax.kernels.schedule import Body, Schedule, schedules

# Chips by the names of their topologies: the smallest one, and the kind that a device of it has.
TOPOLOGIES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
KINDS = {"v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5", "v6e": "TPU v6 lite"}
SMALL = 100  # cycles: what is below runs at every step of the grid


class Cycles(NamedTuple):
    """Cycles of one row and one query head."""

    forward: float
    backward: float


def abstract(chip: str, *shapes: tuple[tuple[int, ...], Any]) -> list[jax.ShapeDtypeStruct]:
    """Arrays of these shapes and dtypes on one chip that needn't be there."""
    options = {"chip_config_name": "megacore"} if chip == "v4" else {}
    device = topologies.get_topology_desc(TOPOLOGIES[chip], platform="tpu", **options).devices[0]
    return [jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device)) for shape, dtype in shapes]


def program(
    chip: str, length: int, group: int, size: int, forward: dict[str, Any], backward: dict[str, Any]
) -> tuple[Callable[..., Any], list[jax.ShapeDtypeStruct]]:
    """What `compiled` compiles: forward and backward of one row and one key head with `group` query heads."""
    chosen = tpu.blocks_for(KINDS[chip], size, group)
    chosen = chosen._replace(forward=tpu.ForwardBlocks(**forward), backward=tpu.BackwardBlocks(**backward))

    def both(q: Any, k: Any, v: Any, positions: Any, d_out: Any) -> Any:
        out, back = jax.vjp(lambda *x: tpu.attention(x[0], x[1], x[2], positions, blocks=chosen), q, k, v)
        return out, back(d_out)

    q, k = ((1, length, group, size), jnp.bfloat16), ((1, length, 1, size), jnp.bfloat16)
    return both, abstract(chip, q, k, k, ((1, length), jnp.int32), q)


def compiled(
    chip: str, group: int, size: int, forward: tpu.ForwardBlocks, backward: tpu.BackwardBlocks, length: int = 4096
) -> tuple[Schedule, Schedule]:
    """The schedules of both kernels. A row's length changes how often bodies run, not what is in them.

    Raises:
        RuntimeError: they don't compile, for want of VMEM for instance.
    """
    arguments = {"chip": chip, "length": length, "group": group, "size": size}
    arguments |= {"forward": forward._asdict(), "backward": backward._asdict()}
    one, other = schedules("opencoder_jax.kernels.attention.cycles:program", arguments, "attention_")
    return one, other


def estimate(
    compiled: tuple[Schedule, Schedule],
    group: int,
    forward: tpu.ForwardBlocks,
    backward: tpu.BackwardBlocks,
    positions: np.ndarray,
) -> Cycles:
    """Cycles for a row [1, S] of positions, S a multiple of the block sizes."""
    length = positions.shape[1]
    last = np.arange(length)[None]
    bounds = jnp.asarray(np.stack((last - positions, last), axis=1), jnp.int32)

    *tiles, whole = compiled[0].products()
    tokens = forward.rows // group
    ranges = np.asarray(tpu.key_ranges(bounds, tokens, forward, length)).reshape(-1, 6)
    seen, _ = sight(positions, min(forward.edge_queries, tokens), forward.edge)
    inside = 0
    for rows, (begin, cut, _, _, tail, end) in zip(np.split(seen, len(ranges)), ranges, strict=True):
        inside += int(rows[:, begin:cut].sum() + rows[:, tail:end].sum())
    before, after, small = around(compiled[0])
    ahead = len(ranges) * (total(before) + total(after) + small)
    per_block = max(1, tokens // forward.edge_queries)  # as many tiles see a step, at each head, or one for all heads
    ahead += inside * total(tiles) / per_block + (ranges[:, 3] - ranges[:, 2]).sum() * whole.cycles

    *tiles, whole = compiled[1].products()
    ranges = np.asarray(tpu.query_ranges(bounds, backward, length)).reshape(-1, 6)
    seen, _ = sight(positions, backward.edge_queries, backward.edge_keys)
    inside = 0
    for block, (begin, cut, _, _, tail, end) in enumerate(ranges):
        per_block = backward.keys // backward.edge_keys
        steps = [*range(begin, cut), *range(tail, end)]
        inside += int(seen[steps, block * per_block : (block + 1) * per_block].sum())
    before, after, small = around(compiled[1])
    # The first body clears a head's sum for queries and the one after the products writes it; the last one before them
    # turns a block's keys and values for a head; the others belong to blocks of keys, which the heads of a group share.
    back = float(total(before[:1]) + total(after[:1]) + len(ranges) * (total(before[-1:]) + small))
    back += len(ranges) * (total(before[1:-1]) + total(after[1:])) / group
    back += inside * total(tiles) / len(tiles) + (ranges[:, 3] - ranges[:, 2]).sum() * whole.cycles
    return Cycles(float(ahead / group), float(back))


def documents(length: int, count: int) -> np.ndarray:
    """Positions [1, length] of a row of `count` documents of about equal lengths."""
    ends = np.linspace(0, length, count + 1).astype(int)
    return np.concatenate([np.arange(n) for n in np.diff(ends)])[None].astype(np.int32)


def sight(positions: np.ndarray, queries: int, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Which blocks [S / queries, S / keys] hold pairs that see each other, and which hold only such."""
    slots = np.arange(positions.shape[1])
    first, last = (slots - positions[0]).reshape(-1, queries), slots.reshape(-1, queries)
    start = np.arange(0, slots.size, keys)
    seen = (first.min(1)[:, None] < start + keys) & (last.max(1)[:, None] >= start)
    full = (first.max(1)[:, None] <= start) & (last.min(1)[:, None] >= start + keys - 1)
    return seen, full


def around(schedule: Schedule) -> tuple[list[Body], list[Body], int]:
    """The larger bodies before and after those that multiply matrices, and the cycles of all small ones."""
    bodies, products = schedule.bodies, schedule.products()
    places = [i for i, body in enumerate(bodies) if any(body is each for each in products)]
    small = sum(body.cycles for body in bodies if body.cycles < SMALL and all(body is not each for each in products))
    before, after = bodies[: places[0]], bodies[places[-1] + 1 :]
    return [b for b in before if b.cycles >= SMALL], [b for b in after if b.cycles >= SMALL], small


def total(bodies: Sequence[Body]) -> int:
    """Cycles of bodies that each run once."""
    return sum(body.cycles for body in bodies)
