"""Block sizes of the GPU kernels. Triton's stand in blocks.json per family of chips, those for Hopper here."""

import json
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax.numpy as jnp

from opencoder_jax.kernels.attention.shared.block_tables import entry_for

T = TypeVar("T")


class GpuBlocks(NamedTuple, Generic[T]):
    """How each of the three kernels runs on a chip at a head size."""

    forward: T
    backward_keys: T
    backward_queries: T


class TritonBlock(NamedTuple):
    """How one of Triton's kernels runs."""

    queries: int  # of a step, or of a program; a power of two, 16 at least
    keys: int  # the same
    warps: int  # of 32 threads that share a program
    stages: int  # steps whose loads are under way at once


class HopperRing(NamedTuple):
    """The steps of one of the kernels for Hopper, and how many of them lie in shared memory."""

    step: int  # keys, or queries: a multiple of 64
    stages: int  # steps in shared memory at once; forward 2 at least, or its warpgroups wait for each other for good


# Up to these head sizes.
HOPPER = {
    64: GpuBlocks(HopperRing(128, 3), HopperRing(128, 2), HopperRing(128, 2)),
    128: GpuBlocks(HopperRing(128, 2), HopperRing(64, 2), HopperRing(128, 2)),
    160: GpuBlocks(HopperRing(128, 2), HopperRing(64, 2), HopperRing(64, 2)),
    256: GpuBlocks(HopperRing(64, 2), HopperRing(64, 1), HopperRing(64, 1)),
}


def _families() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("blocks.json").read_text())


def family_of(chip: str) -> str:
    """The family of a chip (its device kind, "NVIDIA H100 80GB HBM3"): "Hopper", "Ampere" or "other"."""
    words = set(chip.replace("-", " ").split())
    return next((name for name, family in _families().items() if words & set(family["chips"])), "other")


def triton_blocks(chip: str, head_size: int, dtype: jnp.dtype) -> GpuBlocks[TritonBlock]:
    """The table's blocks for a chip's family.

    Args:
        head_size: D; the table holds the sizes up to which each entry is good.
        dtype: of the operands; the table is for bfloat16. float32, which Triton multiplies without matrix units, gets
            blocks that fit anywhere.
    """
    entry = entry_for(_families()[family_of(chip)]["head_sizes"], head_size)
    if jnp.dtype(dtype).itemsize > 2:
        return GpuBlocks(*(TritonBlock(queries=16, keys=32, warps=8, stages=1) for _ in GpuBlocks._fields))
    return GpuBlocks(*(TritonBlock(**entry[kernel]) for kernel in GpuBlocks._fields))


def hopper_blocks(head_size: int) -> GpuBlocks[HopperRing]:
    """The blocks of the kernels for Hopper, for head sizes up to 256."""
    return next(blocks for largest, blocks in HOPPER.items() if head_size <= largest)
