"""Chooses the block sizes of the TPU attention kernels and writes them into blocks.json.

    python -m opencoder_jax.kernels.attention.tpu.tune --chip=v5e --head_size=128 --group=4

On the TPU itself candidates are timed; elsewhere they are scored by the cycles of the compiler's schedule for a row of
one document and one of eight (cycles.py), which takes a compilation of about half a minute each. Forward and backward
are chosen apart, each by the sum over both rows. Whoever changes the kernels runs it again.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from opencoder_jax.kernels.attention.tpu import cycles
from opencoder_jax.kernels.attention.tpu.attention import attention
from opencoder_jax.kernels.attention.tpu.blocks import (
    TABLE,
    BackwardBlocks,
    ForwardBlocks,
    TpuBlocks,
    blocks_for,
    fitted,
    kind_of,
)

LENGTH, DOCUMENTS = 4096, (1, 8)

Measure = Callable[[ForwardBlocks, BackwardBlocks], cycles.Cycles]


def candidates(head_size: int, group: int) -> Iterator[tuple[ForwardBlocks, BackwardBlocks]]:
    """Pairs to try: what is measured of one doesn't depend on the other, so they are tried side by side."""
    edges = (256, 512) if group == 1 else (128, 256)
    forward = [
        ForwardBlocks(1024, 1024, edge, queries, chunk, transposed)
        for transposed in ((False, True) if head_size % 128 else (False,))
        for edge in edges
        for queries in ((1024, 512) if group == 1 else (1024,))
        for chunk in (256, 512)
    ]
    backward = [
        BackwardBlocks(queries, keys, edge, edge)
        for queries, keys, edge in ((1024, 1024, 512), (512, 1024, 512), (1024, 1024, 256), (512, 512, 512))
    ]
    for i in range(max(len(forward), len(backward))):
        yield forward[i % len(forward)], backward[i % len(backward)]


def choose(
    pairs: Iterator[tuple[ForwardBlocks, BackwardBlocks]], measure: Measure
) -> tuple[ForwardBlocks, BackwardBlocks]:
    """The forward blocks and the backward blocks that cost least; a pair that doesn't compile is passed over, aloud.

    Raises:
        ValueError: nothing compiled.
    """
    forward: dict[ForwardBlocks, float] = {}
    backward: dict[BackwardBlocks, float] = {}
    for ahead, back in pairs:
        try:
            cost = measure(ahead, back)
        except (RuntimeError, ValueError) as error:
            print(f"passed over: {ahead} {back}: {str(error)[-200:]}", file=sys.stderr)
            continue
        print(f"{cost.forward:12,.0f} {ahead}\n{cost.backward:12,.0f} {back}", flush=True)
        forward[ahead], backward[back] = cost.forward, cost.backward
    if not forward:
        raise ValueError("no candidate compiled")
    return min(forward, key=forward.__getitem__), min(backward, key=backward.__getitem__)


def by_schedule(chip: str, head_size: int, group: int) -> Measure:
    """Cycles summed over rows of DOCUMENTS."""

    def measure(forward: ForwardBlocks, backward: BackwardBlocks) -> cycles.Cycles:
        forward, backward, _ = fitted(TpuBlocks(forward, backward, 0), group, LENGTH, LENGTH)
        both = cycles.compiled(chip, group, head_size, forward, backward)
        rows = [cycles.documents(LENGTH, count) for count in DOCUMENTS]
        costs = [cycles.estimate(both, group, forward, backward, row) for row in rows]
        return cycles.Cycles(*(sum(cost) for cost in zip(*costs, strict=True)))

    return measure


def by_time(chip: str, head_size: int, group: int, heads: int = 8, repeats: int = 10) -> Measure:
    """Nanoseconds on the TPU of this machine, the least of some repeats; backward is what both take less forward."""

    def least(compute: Callable[..., object], *arguments: jax.Array) -> float:
        jax.block_until_ready(compute(*arguments))
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            jax.block_until_ready(compute(*arguments))
            times.append(time.perf_counter() - began)
        return 1e9 * min(times)

    def measure(forward: ForwardBlocks, backward: BackwardBlocks) -> cycles.Cycles:
        blocks = TpuBlocks(forward, backward, blocks_for(cycles.KINDS[chip], head_size, group).vmem)
        positions = jnp.asarray(np.concatenate([cycles.documents(LENGTH, count) for count in DOCUMENTS]))
        keys = jax.random.split(jax.random.key(0), 3)
        shape = (len(DOCUMENTS), LENGTH, heads, head_size)
        q, k, v = (
            jax.random.normal(key, (*shape[:2], count, head_size), jnp.bfloat16)
            for key, count in zip(keys, (heads * group, heads, heads), strict=True)
        )

        def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return attention(q, k, v, positions, blocks=blocks)

        def gradient(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            out, back = jax.vjp(mix, q, k, v)
            return back(out)

        ahead = least(jax.jit(mix), q, k, v)
        return cycles.Cycles(ahead, least(jax.jit(gradient), q, k, v) - ahead)

    return measure


def write(chip: str, head_size: int, group: int, chosen: tuple[ForwardBlocks, BackwardBlocks], table: Path) -> None:
    """Puts the choice into the table."""
    content = json.loads(table.read_text())
    forward, backward = chosen
    entry = {"forward": forward._asdict(), "backward": backward._asdict()}
    content[cycles.KINDS[chip]][kind_of(group)][str(head_size)] = entry
    table.write_text(json.dumps(content, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", required=True, choices=cycles.KINDS)
    parser.add_argument("--head_size", type=int, default=128, choices=(64, 128, 160, 256))
    parser.add_argument("--group", type=int, default=1, help="query heads that share a key head")
    options = parser.parse_args(arguments)
    here = jax.devices()[0].device_kind == cycles.KINDS[options.chip]
    measure = (by_time if here else by_schedule)(options.chip, options.head_size, options.group)
    chosen = choose(candidates(options.head_size, options.group), measure)
    write(options.chip, options.head_size, options.group, chosen, TABLE)
    print("written:", *chosen, sep="\n  ")


if __name__ == "__main__":
    main()
