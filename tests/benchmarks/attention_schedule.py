"""Attention on TPUs by the compiler's schedule, ours beside jax's and tokamax's splash attention: no TPU needed.

    python -m tests.benchmarks.attention_schedule [--chips=v5e,v5p,v6e] [--tokamax=PYTHON]

PYTHON is an interpreter of 3.12 with tokamax 0.0.17, jax 0.12.0 and libtpu 0.0.52; without it tokamax is left out.

Estimated cycles, not a measurement: each body of a kernel counts as often as it runs for the row's documents, and
nothing waits for memory. Cycles of a pass are of one row and one query head. "floor" is what the matrix unit needs
for the products of a block in full sight, were it never idle; the peers' blocks are 1024 by 1024 with 512 keys at once.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.attention import tpu
from kernels.schedule import MATRIX, Body, Schedule, schedules
from tests.benchmarks.attention_programs import BLOCK, KINDS, documents

PROGRAMS = "tests.benchmarks.attention_programs"
SHAPES = {128: 4, 160: 1}  # head size and query heads to a key head: the 8B's and the 1.5B's
ROWS = {"4096": (4096, 1), "8192": (8192, 1), "4096 in 8 documents": (4096, 8), "8192 in 16 documents": (8192, 16)}
SMALL = 100  # cycles: what is below runs at every step of the grid


class Pass(NamedTuple):
    """One way to compute attention on a chip."""

    name: str
    forward: Sequence[float]  # cycles of each of ROWS, of one query head
    backward: Sequence[float]
    full: tuple[tuple[float, float, float], tuple[float, float, float]]  # cycles, floor and fill of 1024 x 1024 pairs


def sight(positions: np.ndarray, queries: int, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Which blocks [queries, keys] hold pairs that see each other, and which hold only such."""
    last = np.arange(positions.shape[1])
    first = (last - positions[0]).reshape(-1, queries)
    last = last.reshape(-1, queries)
    start = np.arange(0, last.size, keys)
    seen = (first.min(1)[:, None] < start + keys) & (last.max(1)[:, None] >= start)
    full = (first.max(1)[:, None] <= start) & (last.min(1)[:, None] >= start + keys - 1)
    return seen, full


def around(schedule: Schedule) -> tuple[list[Body], list[Body], int]:
    """The larger bodies before and after those that multiply matrices, and the cycles of all small ones."""
    bodies = schedule.bodies
    products = [i for i, body in enumerate(bodies) if body.used[MATRIX]]
    before, after = bodies[: products[0]], bodies[products[-1] + 1 :]
    small = sum(body.cycles for body in bodies if body.cycles < SMALL and not body.used[MATRIX])
    large = [[body for body in part if body.cycles >= SMALL] for part in (before, after)]
    return large[0], large[1], small


def cycles(bodies: Sequence[Body]) -> int:
    return sum(body.cycles for body in bodies)


def of_full(body: Body, pairs: int) -> tuple[float, float, float]:
    scale = BLOCK * BLOCK / pairs
    return body.cycles * scale, body.used[MATRIX] / body.capacity[MATRIX] * scale, body.fill()


def ours(chip: str, size: int, group: int, blocks: dict[str, Any] | None = None) -> Pass:
    """Our kernels. Their loops' ranges, which decide what runs, are computed by the code that the kernels use."""
    arguments = {"chip": chip, "length": 4096, "group": group, "size": size, "blocks": blocks}
    forward, backward = schedules(f"{PROGRAMS}:ours", arguments, "attention_")
    sizes = tpu.blocks_for(KINDS[chip], size, group)
    ahead = sizes.forward._replace(**(blocks or {}).get("forward", {}))
    back = sizes.backward._replace(**(blocks or {}).get("backward", {}))
    tokens = ahead.rows // group
    edge, full = (body.cycles for body in forward.products())
    *tiles, back_full = backward.products()
    costs: tuple[list[float], list[float]] = ([], [])
    for length, count in ROWS.values():
        positions = documents(length, count)
        last = np.arange(length)[None]
        bounds = jnp.asarray(np.stack((last - positions, last), axis=1), jnp.int32)

        ranges = np.asarray(tpu.key_ranges(bounds, tokens, ahead, length)).reshape(-1, 6)
        begin, cut, full_begin, full_end, tail, end = ranges.sum(axis=0)
        before, after, small = around(forward)
        programs = len(ranges) * (cycles(before) + cycles(after) + small)
        costs[0].append((programs + (cut - begin + end - tail) * edge + (full_end - full_begin) * full) / group)

        ranges = np.asarray(tpu.query_ranges(bounds, back, length)).reshape(-1, 6)
        begin, cut, full_begin, full_end, tail, end = ranges.T
        seen, _ = sight(positions, back.edge_queries, back.edge_keys)
        inside = 0
        for block in range(len(ranges)):
            steps = [*range(begin[block], cut[block]), *range(tail[block], end[block])]
            per_block = back.keys // back.edge_keys
            inside += int(seen[steps, block * per_block : (block + 1) * per_block].sum())
        before, after, small = around(backward)
        once = before[0].cycles + after[0].cycles + len(ranges) * small
        shared = len(ranges) * (cycles(before[1:]) + cycles(after[1:]))
        mean = cycles(tiles) / len(tiles)
        costs[1].append(once + shared / group + inside * mean + (full_end - full_begin).sum() * back_full.cycles)
    return Pass(
        "ours",
        *costs,
        (of_full(forward.products()[1], ahead.rows * ahead.keys), of_full(back_full, back.queries * back.keys)),
    )


def peer(name: str, target: str, chip: str, size: int, group: int, python: str, skips: bool, **more: Any) -> Pass:
    """A splash attention in blocks of 1024 by 1024.

    Args:
        skips: whether it leaves out blocks of other documents, and has a body of its own for blocks in full sight.
    """
    arguments = {"chip": chip, "length": 4096, "group": group, "size": size, **more}
    found = schedules(f"{PROGRAMS}:{target}", arguments, "splash_m", python)
    costs = []
    full = []
    for kernels in (found[:1], found[1:]):
        totals = [0.0] * len(ROWS)
        figures = np.zeros(2)
        for schedule in kernels:
            # Masks take the vector unit: of two bodies the one that uses it less is the one for blocks in full sight.
            plain, *masked = sorted(schedule.products(), key=lambda body: body.used["VALU"])
            figures += np.array(of_full(plain, BLOCK * BLOCK)[:2])
            before, after, small = around(schedule)
            for i, (length, count) in enumerate(ROWS.values()):
                seen, whole = sight(documents(length, count if skips else 1), BLOCK, BLOCK)
                edges = int((seen & ~whole).sum()) if masked else 0
                per_block = small + plain.cycles
                totals[i] += seen.sum() * per_block + edges * ((masked or [plain])[0].cycles - plain.cycles)
                totals[i] += length // BLOCK * (cycles(before) + cycles(after))
        costs.append(totals)
        full.append((figures[0], figures[1], figures[1] / figures[0]))
    return Pass(name, costs[0], costs[1], (full[0], full[1]))


def table(chip: str, size: int, passes: Sequence[Pass]) -> str:
    rows = [f"{chip}, head size {size}, {SHAPES[size]} query heads to a key head"]
    for direction in (0, 1):
        rows += [
            f"  {('forward', 'backward')[direction]:26}{'full 1024 x 1024':>17}{'floor':>8}{'fill':>6}"
            + "".join(f"{name:>22}" for name in ROWS)
        ]
        for each in passes:
            block = each.full[direction]
            rows += [
                f"    {each.name:24}{block[0]:17,.0f}{block[1]:8,.0f}{block[2]:6.2f}"
                + "".join(f"{cost:22,.0f}" for cost in each[1 + direction])
            ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", default="v5e,v5p,v6e")
    parser.add_argument("--sizes", default="128,160", help="head sizes")
    parser.add_argument("--tokamax", metavar="PYTHON", help="an interpreter that has tokamax")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # this process only counts; it looks for no chip
    with ThreadPoolExecutor(2) as pool:
        waiting = []
        for chip in options.chips.split(","):
            for size in map(int, options.sizes.split(",")):
                group = SHAPES[size]
                row = [
                    pool.submit(ours, chip, size, group),
                    pool.submit(peer, "jax splash", "splash", chip, size, group, sys.executable, skips=False),
                ]
                if options.tokamax:
                    for more, name in ((False, "tokamax"), (True, "tokamax, experimental")):
                        row.append(
                            pool.submit(
                                peer, name, "tokamax", chip, size, group, options.tokamax, skips=True, experimental=more
                            )
                        )
                waiting.append((chip, size, row))
        for chip, size, row in waiting:
            print(table(chip, size, [each.result() for each in row]), flush=True)


if __name__ == "__main__":
    main()
