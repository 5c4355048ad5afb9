"""Attention on TPUs by the compiler's schedule, ours beside jax's and tokamax's splash attention: no TPU needed.

    python -m tests.benchmarks.attention_schedule [--chips=v5e,v5p,v6e] [--tokamax=PYTHON] [--output=FILE]

PYTHON is an interpreter of 3.12 with tokamax 0.0.17, jax 0.12.0 and libtpu 0.0.52; without it tokamax is left out.

Estimated cycles, not a measurement: each body of a kernel counts as often as it runs for the row's documents, and
nothing waits for memory. Cycles of a pass are of one row and one query head. "floor" is what the matrix unit needs
for the products of an unmasked block, were it never idle; the peers' blocks are 1024 by 1024 with 512 keys at once.
A line on stderr tells of each kernel compiled (24 in all, two at a time); FILE gets the table's rows as JSON lines. The
command ends with 1 where a pass of ours takes no fewer cycles than a peer's.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from opencoder_jax.kernels.attention.tpu.blocks import blocks_for
from opencoder_jax.kernels.attention.tpu.cycles import KINDS, around, compiled, documents, estimate, total, visible
from opencoder_jax.kernels.schedule import MATRIX, Body, schedules
from tests.benchmarks.attention_programs import BLOCK

PROGRAMS = "tests.benchmarks.attention_programs"
SHAPES = {128: 4, 160: 1}  # head size and query heads to a key head: the 8B's and the 1.5B's
ROWS = {"4096": (4096, 1), "8192": (8192, 1), "4096 in 8 documents": (4096, 8), "8192 in 16 documents": (8192, 16)}


class Pass(NamedTuple):
    """One way to compute attention on a chip."""

    name: str
    forward: Sequence[float]  # cycles of each of ROWS, of one query head
    backward: Sequence[float]
    full: tuple[tuple[float, float, float], tuple[float, float, float]]  # cycles, floor and fill of 1024 x 1024 pairs


def of_full(body: Body, pairs: int) -> tuple[float, float, float]:
    scale = BLOCK * BLOCK / pairs
    return body.cycles * scale, body.used[MATRIX] / body.capacity[MATRIX] * scale, body.fill()


def ours(chip: str, size: int, group: int) -> Pass:
    """Our kernels, with the blocks that the table has for the chip."""
    forward, backward, _ = blocks_for(KINDS[chip], size, group)
    both = compiled(chip, group, size, forward, backward)
    costs = [estimate(both, group, forward, backward, documents(*row)) for row in ROWS.values()]
    full = (
        of_full(both[0].products()[-1], forward.rows * forward.keys),
        of_full(both[1].products()[-1], backward.queries * backward.keys),
    )
    return Pass("ours", [cost.forward for cost in costs], [cost.backward for cost in costs], full)


def peer(name: str, target: str, chip: str, size: int, group: int, python: str, skips: bool, **more: Any) -> Pass:
    """A splash attention in blocks of 1024 by 1024.

    Args:
        skips: whether it leaves out blocks of other documents, and has a body of its own for blocks without a mask.
    """
    arguments = {"chip": chip, "length": 4096, "group": group, "size": size, **more}
    found = schedules(f"{PROGRAMS}:{target}", arguments, "splash_m", python)
    costs = []
    full = []
    for kernels in (found[:1], found[1:]):
        totals = [0.0] * len(ROWS)
        figures = np.zeros(2)
        for schedule in kernels:
            # Masks take the vector unit: of two bodies the one that uses it less has no mask.
            plain, *masked = sorted(schedule.products(), key=lambda body: body.used["VALU"])
            figures += np.array(of_full(plain, BLOCK * BLOCK)[:2])
            before, after, small = around(schedule)
            for i, (length, count) in enumerate(ROWS.values()):
                seen, whole = visible(documents(length, count if skips else 1), BLOCK, BLOCK)
                edges = int((seen & ~whole).sum()) if masked else 0
                per_block = small + plain.cycles
                totals[i] += seen.sum() * per_block + edges * ((masked or [plain])[0].cycles - plain.cycles)
                totals[i] += length // BLOCK * (total(before) + total(after))
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


def behind(passes: Sequence[Pass]) -> list[str]:
    """Where the first of the passes takes no fewer cycles than another."""
    mine, *peers = passes
    return [
        f"{direction}, {row}: {own:,.0f}, {peer.name} {other:,.0f}"
        for i, direction in enumerate(("forward", "backward"), 1)
        for peer in peers
        for row, own, other in zip(ROWS, mine[i], peer[i], strict=True)
        if own >= other
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", default="v5e,v5p,v6e")
    parser.add_argument("--sizes", default="128,160", help="head sizes")
    parser.add_argument("--tokamax", metavar="PYTHON", help="an interpreter that has tokamax")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON lines")
    options = parser.parse_args()
    lost, lines = False, []
    jax.config.update("jax_platforms", "cpu")  # this process only counts; it looks for no chip
    with ThreadPoolExecutor(2) as pool:

        def started(chip: str, size: int, what: Callable[..., Pass], *arguments: Any, **more: Any) -> Future[Pass]:
            future = pool.submit(what, *arguments, **more)
            future.add_done_callback(
                lambda done: print(
                    f"{chip}, {size}: {done.exception() or done.result().name}", file=sys.stderr, flush=True
                )
            )
            return future

        waiting = []
        for chip in options.chips.split(","):
            for size in map(int, options.sizes.split(",")):
                at = (chip, size, SHAPES[size])
                row = [
                    started(chip, size, ours, *at),
                    started(chip, size, peer, "jax splash", "splash", *at, sys.executable, skips=False),
                ]
                if options.tokamax:
                    row += [
                        started(chip, size, peer, name, "tokamax", *at, options.tokamax, skips=True, experimental=more)
                        for more, name in ((False, "tokamax"), (True, "tokamax, experimental"))
                    ]
                waiting.append((chip, size, row))
        for chip, size, row in waiting:
            passes = [each.result() for each in row]
            print(table(chip, size, passes), flush=True)
            for line in behind(passes):
                lost = True
                print(f"    behind: {line}", flush=True)
            lines += [json.dumps({"chip": chip, "head_size": size} | each._asdict()) for each in passes]
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
    sys.exit(lost)


if __name__ == "__main__":
    main()
