"""What the links of a torus carry when all groups of a collective exchange data at once.

Along each dimension every group loads the lines that its chips lie on. A line of chips hands each chip's part on to
both ends, so the link before the last chip carries all the others'. Where a dimension is closed, parts may go around it
instead, half each way, if that loads the fullest link less. Groups whose chips lie apart share the links between: the
fullest link sets the pace. Dimensions carry a collective's parts side by side, so their rates add up.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from opencoder_jax.compile.chips import Topology

Position = tuple[int, ...]  # slice, then coordinates
Link = tuple[object, ...]  # a dimension, the line along it, a place on that, a direction


def rate(topology: Topology, groups: Sequence[Sequence[Position]]) -> float:
    """Bytes a second that flow into the worst placed chip of the slowest group; groups are of equal size.

    Chips of several slices meet over the data-centre network.
    """
    if any(len({position[0] for position in group}) > 1 for group in groups):
        return topology.chip.network
    total = 0.0
    for axis, (size, ring) in enumerate(zip(topology.bounds, topology.rings, strict=True), 1):
        parts = max(len({position[axis] for position in group}) for group in groups) - 1
        if parts:
            ways: list[Callable[[list[int], int], dict[tuple[int, int], float]]] = [_along]
            ways += [_around] if ring and size > 2 else []
            total += parts / min(_fullest(groups, axis, size, way) for way in ways)
    return (total or 1.0) * topology.chip.link


def permute_seconds(topology: Topology, pairs: Sequence[tuple[Position, Position]], size: float) -> float:
    """How long it takes to send `size` bytes from the first chip of each pair to the second, all at once.

    They go one dimension after the other, the shorter way round.
    """
    if any(a[0] != b[0] for a, b in pairs):
        return size / topology.chip.network
    loads: Counter[Link] = Counter()
    for sender, receiver in pairs:
        at = list(sender)
        for axis, (length, ring) in enumerate(zip(topology.bounds, topology.rings, strict=True), 1):
            way = receiver[axis] - at[axis]
            if ring and abs(way) * 2 > length:
                way -= length if way > 0 else -length
            step = 1 if way > 0 else -1
            for _ in range(abs(way)):
                loads[axis, *at, step] += 1
                at[axis] = (at[axis] + step) % length
    return size * max(loads.values(), default=1) / topology.chip.link


def _fullest(
    groups: Sequence[Sequence[Position]],
    axis: int,
    size: int,
    way: Callable[[list[int], int], dict[tuple[int, int], float]],
) -> float:
    """What the fullest link along a dimension carries, in parts of a chip, if all lines are loaded in this way."""
    loads: Counter[Link] = Counter()
    for group in groups:
        places = sorted({position[axis] for position in group})
        if len(places) == 1:
            continue
        of_line = way(places, size)
        for line in {(*position[:axis], *position[axis + 1 :]) for position in group}:
            for link, parts in of_line.items():
                loads[line, link] += parts  # type: ignore[assignment]
    return max(loads.values())


def _along(places: list[int], size: int) -> dict[tuple[int, int], float]:
    """What a group's chips at these places load between the first and the last: (place, direction) -> parts."""
    loads = {}
    for at in range(places[0], places[-1]):
        before = sum(place <= at for place in places)
        loads[at, 1], loads[at, -1] = float(before), float(len(places) - before)
    return loads


def _around(places: list[int], size: int) -> dict[tuple[int, int], float]:
    """What they load on a ring: half of all parts but one's own, everywhere."""
    half = (len(places) - 1) / 2
    return {(at, direction): half for at in range(size) for direction in (1, -1)}
