"""What one run of each Pallas kernel of a traced step takes on one chip.

The attention kernels are compiled once more, alone and in a process of their own, whose dump of the compiler's schedule
tells the cycles of every body (kernels/attention/tpu/cycles.py). Rows count as one document each, as in the MFU.
"""

from typing import Any, NamedTuple

from opencoder_jax.compile.chips import Topology
from opencoder_jax.kernels.attention.tpu import cycles
from opencoder_jax.kernels.attention.tpu.blocks import blocks_for, fitted
from opencoder_jax.model.flops import kernel_calls


class KernelCycles(NamedTuple):
    """Cycles of one run by the kernel's name, and which of them are only the least: FLOPs at the chip's peak."""

    cycles: dict[str, float]
    least: frozenset[str]


def kernel_cycles(jaxpr: Any, topology: Topology) -> KernelCycles:
    """For all kernels of a traced program."""
    calls = kernel_calls(jaxpr)
    chip = topology.chip
    found = {name: flops / chip.peak * chip.clock for name, (flops, _) in calls.items()}
    scheduled: dict[str, float] = {}
    if "attention_forward" in calls:
        _, shapes = calls["attention_forward"]
        q, k, _, bounds = shapes[2:]  # after the scalars that are prefetched
        scheduled = _attention(topology, bounds[0], q, k)
    return KernelCycles(found | scheduled, frozenset(found.keys() - scheduled.keys()))


def _attention(topology: Topology, rows: int, q: tuple[int, ...], k: tuple[int, ...]) -> dict[str, float]:
    """Forward and backward, by the operands of the forward kernel: [K, G, D, B*S] and [K, D, B*T]."""
    kv_heads, group, size, length = *q[:3], q[3] // rows
    blocks = fitted(blocks_for(topology.chip.kind, size, group), group, length, k[2] // rows)
    if q[3] != k[2]:  # a part of the queries: not what `estimate` counts
        return {}
    try:
        compiled = cycles.compiled(topology.name, group, size, blocks.forward, blocks.backward, length)
    except RuntimeError:
        return {}
    of_head = cycles.estimate(compiled, group, blocks.forward, blocks.backward, cycles.documents(length, 1))
    # The grid's rows and heads are shared out among the cores of a chip.
    heads = rows * kv_heads * group / topology.chip.cores
    return {"attention_forward": of_head.forward * heads, "attention_backward": of_head.backward * heads}
