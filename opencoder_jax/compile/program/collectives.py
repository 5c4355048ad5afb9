"""The collectives of a compiled program: what each of them moves, along which axes of the mesh, and how often."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from opencoder_jax.compile.program.hlo import COLLECTIVES, CompiledProgram, Instruction, shape_bytes


@dataclass(frozen=True)
class Collective:
    """One collective of a program, as one chip sees it."""

    kind: str  # the opcode; an all-reduce of whose result a chip takes its part alone is a reduce-scatter
    axes: frozenset[str]  # of the mesh: those along which the chips of a group differ
    runs: int  # in one run of the program
    bytes: float  # that the chip takes in, in all runs
    group: tuple[int, ...]  # the first of its groups of devices; of a permute, sender and receiver
    source: str  # the name scopes and the primitive that it stems from
    shape: str


def collectives_of(program: CompiledProgram, mesh: Mapping[str, int]) -> list[Collective]:
    """All collectives of a program that was compiled for a mesh of these sizes, in the order in which they start.

    Raises:
        ValueError: a loop whose turns can't be counted has collectives.
    """
    devices = prod(mesh.values())
    found = []
    under_way: set[str] = set()  # what runs between two fusions; those between hold it too
    for instruction, runs in program.walk():
        one = None if instruction.opcode.endswith("-done") else collective_in(program, instruction)
        if one is None:
            continue
        step, ticket = async_fusion(program, instruction), ticket_of(one) or ""
        if ticket in under_way:
            if step == "Done":
                under_way.discard(ticket)
            continue
        if step == "Start":
            under_way.add(ticket)
        if runs is None:
            raise ValueError(f"{one.name}: how often the loop runs that it stands in can't be told")
        kind, group = kind_of(program, instruction, one), one.groups[0] if one.groups else tuple(range(devices))
        moved = received(kind, one, len(group)) * runs
        found.append(Collective(kind, axes_of(one.groups, mesh), runs, moved, group, one.source, one.shape))
    return found


def axes_of(groups: tuple[tuple[int, ...], ...], mesh: Mapping[str, int]) -> frozenset[str]:
    """The axes along which the members of a group differ; no groups are one of all chips."""
    if not groups:
        return frozenset(axis for axis, size in mesh.items() if size > 1)
    positions = [np.array(np.unravel_index(group, tuple(mesh.values()))) for group in groups]
    differ = np.any([(position != position[:, :1]).any(axis=1) for position in positions], axis=0)
    return frozenset(axis for axis, differs in zip(mesh, differ, strict=True) if differs)


def kind_of(program: CompiledProgram, instruction: Instruction, collective: Instruction) -> str:
    """What a collective is, that `instruction` is or holds."""
    return "reduce-scatter" if _scattered(program, instruction) else collective.opcode.removesuffix("-start")


def received(kind: str, collective: Instruction, size: int) -> float:
    """The bytes that a chip takes in, of a group of `size` chips, in one run."""
    result = _moved(collective)
    share = (size - 1) / size
    if kind == "collective-permute":
        return result
    if kind == "reduce-scatter":
        return (result if collective.opcode.startswith("all-reduce") else result * size) * share
    if kind == "all-reduce":
        return 2 * result * share
    return result * share


def _moved(instruction: Instruction) -> float:
    """The bytes of the result; what is started has the shape (operands, results, flags), but an all-reduce."""
    arrays = [size for size in shape_bytes(instruction.shape) if size > 4]
    both = instruction.opcode.endswith("-start") and not instruction.opcode.startswith("all-reduce")
    return sum(arrays[len(arrays) // 2 :] if both else arrays)


def collective_in(program: CompiledProgram, instruction: Instruction) -> Instruction | None:
    """The collective that an instruction is, or that the computation which it calls holds."""
    if instruction.opcode.removesuffix("-start").removesuffix("-done") in COLLECTIVES:
        return instruction
    called = instruction.called("calls")
    inside = program.inside(called) if called else ()
    return next((x for x in inside if x.opcode in COLLECTIVES), None)


def _scattered(program: CompiledProgram, instruction: Instruction) -> bool:
    """Whether an all-reduce was fused with the slice that a chip takes of its result: it sends no more than that."""
    called = instruction.called("calls") if instruction.opcode == "fusion" else None
    if called is None:
        return False
    return called.startswith("all-reduce-scatter") or any(
        (x.called("calls") or "").startswith("all-reduce-scatter") for x in program.inside(called)
    )


def async_fusion(program: CompiledProgram, instruction: Instruction) -> str | None:
    """Start or Done, for the fusions between which a TPU runs a collective beside others' arithmetic."""
    if instruction.opcode != "fusion" or (called := instruction.called("calls")) is None:
        return None
    for inside in program.inside(called):
        if found := re.search(r'custom_call_target="AsyncCollective(Start|Done)"', inside.text):
            return found[1]
    return None


def ticket_of(collective: Instruction | None) -> str | None:
    """What joins the start and the end of a collective that was fused with others' arithmetic."""
    found = re.search(r"channel_id=(\d+)", collective.text) if collective else None
    return f"channel {found[1]}" if collective and found and not collective.opcode.endswith("-start") else None
