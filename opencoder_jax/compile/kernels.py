"""The kernels of a step: what a traced program asks for and costs, which a compiled one runs, how long each takes.

The attention kernels are compiled once more, alone and in a process of their own, whose dump of the compiler's schedule
tells the cycles of every body (kernels/attention/tpu/cycles.py). Rows count as one document each, as in the MFU.
"""

import re
from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

from opencoder_jax.compile.chips import Topology
from opencoder_jax.compile.program.hlo import CompiledProgram, Instruction
from opencoder_jax.kernels.attention.tpu import cycles
from opencoder_jax.kernels.attention.tpu.blocks import blocks_for, fitted
from opencoder_jax.kernels.attention.tpu.segments import segments_of

ITEM = 2  # bytes of a number: what cycles.py compiles is bfloat16
LIBRARIES = {"cudnn": "cuDNN", "cublas": "cuBLAS"}


def executed_flops(jaxpr: Any) -> float:
    """What a traced program multiplies and adds in its matrix products, on all devices: loops times their length.

    Kernels count what they say of themselves (`cost_estimate`), and nothing where they say nothing.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        times = 1.0
        if equation.primitive.name == "dot_general":
            (inner, _), _ = equation.params["dimension_numbers"]
            left, result = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2.0 * prod(result) * prod(left[axis] for axis in inner)
        elif equation.primitive.name == "pallas_call":
            total += _said_flops(equation)
            continue
        elif equation.primitive.name == "scan":
            times = equation.params["length"]
        elif equation.primitive.name == "shard_map":  # its body has the shapes of one device
            mesh = equation.params["mesh"]
            times = prod(mesh.shape[axis] for axis in equation.params.get("manual_axes", mesh.axis_names))
        total += times * sum(map(executed_flops, _inside(equation)))
    return total


class KernelCall(NamedTuple):
    """A Pallas kernel as a traced program calls it."""

    flops: float  # of one run on one device, as the kernel says of itself; 0 where it says nothing
    shapes: list[tuple[int, ...]]  # of its operands


def kernel_calls(jaxpr: Any) -> dict[str, KernelCall]:
    """Each Pallas kernel of a traced program by its name."""
    found: dict[str, KernelCall] = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            shapes = [operand.aval.shape for operand in equation.invars]
            found[equation.params["name"]] = KernelCall(_said_flops(equation), shapes)
        else:
            for inside in _inside(equation):
                found |= kernel_calls(inside)
    return found


def _said_flops(call: Any) -> float:
    cost = call.params.get("cost_estimate")
    return float(cost.flops) if cost else 0.0


def _inside(equation: Any) -> Iterator[Any]:
    """The programs that an operation holds: the body of a loop, what is computed again, a device's part."""
    for parameter in equation.params.values():
        for inside in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
            inside = getattr(inside, "jaxpr", inside)
            if hasattr(inside, "eqns"):
                yield inside


def kernels_of(program: CompiledProgram) -> dict[str, int]:
    """Runs of each kernel in one run of a compiled program; 0 where a loop's turns can't be counted.

    Ours have the names that they were given in Pallas; a GPU's libraries have theirs, and its products that XLA makes
    with Triton are one.
    """
    found: Counter[str] = Counter()
    for instruction, runs in program.walk():
        if name := _name(instruction):
            found[name] += runs or 0
    return dict(sorted(found.items()))


def _name(instruction: Instruction) -> str | None:
    if instruction.opcode == "custom-call":
        if found := re.search(r"([\w.-]+)/pallas_call", instruction.source):
            return found[1]
        if found := re.search(r'custom_call_target="__(cudnn|cublas)\$([\w$]+)', instruction.text):
            return f"{LIBRARIES[found[1]]} {found[2]}"
    if re.search(r'"kind":"__triton\w*gemm\w*"', instruction.text):
        return "products (Triton, by XLA)"
    return None


class KernelCycles(NamedTuple):
    """Cycles of one run by the kernel's name, and which of them are only the least: FLOPs at the chip's peak."""

    cycles: dict[str, float]
    least: frozenset[str]


def kernel_cycles(jaxpr: Any, topology: Topology) -> KernelCycles:
    """What one run of each kernel of a traced program takes on one TPU."""
    calls, chip = kernel_calls(jaxpr), topology.chip
    found = {name: call.flops / chip.peak * chip.clock for name, call in calls.items()}
    scheduled: dict[str, float] = {}
    if "attention_forward" in calls:
        q, k, _, bounds = calls["attention_forward"].shapes[2:]  # after the scalars that are prefetched
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
    # The grid's rows and heads are shared out among the cores of a chip. A long row's gradients come in several runs.
    heads = rows * kv_heads * group / topology.chip.cores
    part = segments_of(blocks, group, size, ITEM, length, length).queries / length
    return {"attention_forward": of_head.forward * heads, "attention_backward": of_head.backward * heads * part}
