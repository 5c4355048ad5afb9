"""A compiled program as XLA prints it: its computations, in the order they are scheduled, and how often loops run.

Only what an estimate of time and traffic needs is read: shapes, operands, called computations, the source's names, and
what the TPU compiler writes beside an instruction ("estimated_cycles"). Trip counts are worked out from a loop's
condition, since XLA's own cost analysis counts the body of a loop once.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}
BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s8": 1, "u8": 1, "c64": 8, "token": 0}
COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclass(frozen=True)
class Instruction:
    """One line of a computation: `%name = shape opcode(%operand, …), attributes`."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    text: str  # from the operands on

    @cached_property
    def cycles(self) -> int | None:
        """What the TPU compiler expects it to take; None where it says nothing."""
        found = re.search(r'"estimated_cycles":"(-?\d+)"', self.text)
        return max(0, int(found[1])) if found else None

    @cached_property
    def source(self) -> str:
        """Where it stems from in the source: the name scopes and the primitive."""
        found = re.search(r'op_name="([^"]*)"', self.text)
        return found[1] if found else ""

    def called(self, attribute: str) -> str | None:
        """The computation named by `calls`, `body`, `condition`, `to_apply`, or the first of `called_computations`."""
        found = re.search(rf"\b{attribute}=\{{?%([\w.-]+)", self.text)
        return found[1] if found else None

    @property
    def branches(self) -> tuple[str, ...]:
        """The computations of a call, or of a conditional."""
        if found := re.search(r"branch_computations=\{([^}]*)\}", self.text):
            return tuple(re.findall(r"%([\w.-]+)", found[1]))
        return tuple(re.findall(r"\b(?:to_apply|calls|true_computation|false_computation)=%([\w.-]+)", self.text))

    @cached_property
    def bytes(self) -> float:
        """Of the result; of all of it where it is a tuple. Padding is not counted."""
        return sum(shape_bytes(self.shape))

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Which devices of the program take part in a collective together; of a permute, sender and receiver."""
        if found := re.search(r"source_target_pairs=\{(\{.*?\})\}", self.text):
            return _lists(found[1])
        if found := re.search(r"replica_groups=\{(\{[\d,{}]*\})\}", self.text):
            return _lists(found[1])
        if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", self.text):
            shape, dims = _numbers(found[1]), _numbers(found[2])
            order = _numbers(found[3]) if found[3] else tuple(range(len(dims)))
            return _rows(dims, order, shape[-1])
        if found := re.search(_MESH_GROUPS, self.text):
            axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found["axes"])}
            inner = re.findall(r"'(\w+)'", found["inner"])
            outer = [name for name in axes if name not in inner]
            order = tuple(list(axes).index(name) for name in (*outer, *inner))
            rows = _rows(tuple(axes.values()), order, prod(axes[name] for name in inner))
            if found["dims"] is None:
                return rows
            dims = _numbers(found["dims"])
            turned = _numbers(found["turned"]) if found["turned"] else tuple(range(len(dims)))
            ids = [id for row in _rows(dims, turned, 1) for id in row]
            return tuple(tuple(ids[index] for index in row) for row in rows)
        if re.search(r"replica_groups=(?!\{\})", self.text):
            raise ValueError(f"{self.name}: groups of devices in a form that isn't known: {self.text[:300]}")
        return ()


# Groups along the axes `inner` of a mesh whose devices are 0, 1, … or, where `dims` is given, these transposed.
_MESH_GROUPS = (
    r"replica_groups=mesh\[(?P<axes>[^\]]*)\],?"
    r"(?: device_ids=\(\[(?P<dims>[\d,]+)\](?:T\((?P<turned>[\d,]+)\))?\))? ?\{(?P<inner>['\w, ]*)\}"
)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _lists(text: str) -> tuple[tuple[int, ...], ...]:
    return tuple(_numbers(group) for group in re.findall(r"\{([\d,]+)\}", text))


def _rows(dims: tuple[int, ...], order: tuple[int, ...], size: int) -> tuple[tuple[int, ...], ...]:
    """0 .. prod(dims) - 1, laid out by `dims`, transposed to `order`, cut into rows of `size`."""
    strides = [prod(dims[axis + 1 :]) for axis in range(len(dims))]
    flat = [0]
    for axis in order:
        flat = [base + step * strides[axis] for base in flat for step in range(dims[axis])]
    return tuple(tuple(flat[start : start + size]) for start in range(0, len(flat), size))


def shape_bytes(shape: str) -> list[float]:
    """The bytes of each array in a shape, in order."""
    arrays = re.findall(r"\b([a-z]\w*)\[([\d,]*)\]", shape)
    return [BYTES.get(kind, 1) * prod(_numbers(dims) if dims else (1,)) for kind, dims in arrays]


@dataclass(frozen=True)
class Computation:
    """Instructions in the order in which they run (a TPU program is printed as scheduled)."""

    name: str
    instructions: tuple[Instruction, ...]

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        return {instruction.name: instruction for instruction in self.instructions}

    @property
    def root(self) -> Instruction:
        return self.instructions[-1]


class CompiledProgram:
    """All computations of a compiled program. `entry` is where it begins."""

    def __init__(self, text: str):
        """Raises ValueError when the text has no entry computation."""
        self.computations: dict[str, Computation] = {}
        entry = None
        name, lines = "", list[Instruction]()
        root = None
        for line in text.splitlines():
            if line.startswith(("%", "ENTRY ")) and line.endswith("{"):
                name, lines, root = line.removeprefix("ENTRY ").split()[0].lstrip("%").split("(")[0], [], None
                entry = name if line.startswith("ENTRY ") else entry
            elif line.startswith("}"):
                # The root stands last here, wherever it was printed: nothing runs by being the root.
                ordered = [*(x for x in lines if x is not root), *([root] if root else [])]
                self.computations[name] = Computation(name, tuple(ordered))
            elif found := _INSTRUCTION.match(line):
                text_ = line[found.end() :]
                operands = tuple(re.findall(r"%([\w.-]+(?:#\d+)?)", text_[: _closing(text_)]))
                lines += _elements(operands, lines)
                lines.append(Instruction(found[2], found[3], found[4], operands, text_))
                root = lines[-1] if found[1] else root
        if entry is None:
            raise ValueError("the text of the program has no entry computation")
        self.entry = self.computations[entry]

    def walk(self) -> Iterator[tuple[Instruction, int | None]]:
        """Every instruction that runs by itself (not those in fusions), in order, and how often.

        None: that can't be told. Both branches of a conditional count, as if they ran.
        """
        yield from self._walk(self.entry, 1)

    def _walk(self, computation: Computation, runs: int | None) -> Iterator[tuple[Instruction, int | None]]:
        for instruction in computation.instructions:
            if instruction.opcode == "while":
                trips = self.trips(instruction, computation)
                inside = None if runs is None or trips is None else runs * trips
                yield from self._walk(self.computations[instruction.called("body") or ""], inside)
            elif instruction.opcode in ("call", "conditional", "async-call"):
                for called in instruction.branches:
                    yield from self._walk(self.computations[called], runs)
            else:
                yield instruction, runs

    def trips(self, loop: Instruction, outside: Computation) -> int | None:
        """How often a loop's body runs: as XLA says, or its counter goes from a constant to a constant; else None."""
        if said := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.text):
            return int(said[1])
        condition = self.computations[loop.called("condition") or ""]
        body = self.computations[loop.called("body") or ""]
        test = condition.root
        while test.opcode in ("copy", "bitcast", "fusion") and len(test.operands) == 1:
            test = condition.by_name[test.operands[0]]
        inner = self.computations.get(test.called("calls") or "", condition) if test.opcode == "fusion" else condition
        compare = next((x for x in inner.instructions if x.opcode == "compare"), None)
        limits = [int(found[1]) for x in condition.instructions if (found := _CONSTANT.match(f"{x.opcode}({x.text}"))]
        counters = [int(found[1]) for x in condition.instructions if (found := re.search(r"index=(\d+)", x.text))]
        if compare is None or len(limits) != 1 or len(counters) != 1 or "direction=LT" not in compare.text:
            return None
        start = self._constant(outside, self._element(outside, loop.operands[0], counters[0]))
        step = self._step(body, self._element(body, body.root.name, counters[0]), counters[0])
        return None if start is None or not step else max(0, -(-(limits[0] - start) // step))

    def _element(self, where: Computation, name: str, index: int) -> str | None:
        """Which value is element `index` of the tuple `name`."""
        found = where.by_name.get(name)
        while found is not None and found.opcode in ("copy", "bitcast", "opt-barrier"):
            found = where.by_name.get(found.operands[0])
        return found.operands[index] if found is not None and found.opcode == "tuple" else None

    def _constant(self, where: Computation, name: str | None) -> int | None:
        found = where.by_name.get(name or "")
        while found is not None and found.opcode in ("copy", "bitcast", "convert") and found.operands:
            found = where.by_name.get(found.operands[0])
        if found is None:
            return None
        value = _CONSTANT.match(f"{found.opcode}({found.text}")
        return int(value[1]) if value else None

    def _step(self, body: Computation, name: str | None, index: int) -> int | None:
        """What a body adds to its counter."""
        found = body.by_name.get(name or "")
        while found is not None and found.opcode in ("copy", "bitcast") and found.operands:
            found = body.by_name.get(found.operands[0])
        if found is None or found.opcode not in ("add", "fusion"):
            return None
        steps = [value for operand in found.operands if (value := self._constant(body, operand)) is not None]
        if not steps and (inside := self.computations.get(found.called("calls") or "")):
            steps = [value for x in inside.instructions if (value := self._constant(inside, x.name)) is not None]
        return steps[0] if len(steps) == 1 else None

    def inside(self, name: str) -> Iterator[Instruction]:
        """The instructions of a computation and of those that it calls, but for loops."""
        for instruction in self.computations[name].instructions:
            yield instruction
            if called := instruction.called("calls") or instruction.called("called_computations"):
                yield from self.inside(called)


_INSTRUCTION = re.compile(r"\s+(ROOT )?%([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\(")
_CONSTANT = re.compile(r"constant\((-?\d+)\)")


def _elements(operands: tuple[str, ...], before: list[Instruction]) -> Iterator[Instruction]:
    """The `get-tuple-element` that newer XLA prints as a part of the operand: `%tuple#2`."""
    known = {instruction.name: instruction for instruction in before if "#" in "".join(operands)}
    for operand in dict.fromkeys(operands):
        if "#" in operand and operand not in known:
            name, index = operand.split("#")
            shape = _parts(known[name].shape)[int(index)] if name in known else ""
            yield Instruction(operand, shape, "get-tuple-element", (name,), f"%{name}), index={index}")


def _parts(shape: str) -> list[str]:
    """The shapes in a tuple's."""
    parts, depth = [""], 0
    for character in re.sub(r"/\*.*?\*/", "", shape)[1:-1]:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _closing(text: str) -> int:
    """Where the bracket closes that was opened before `text`."""
    depth = 1
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return index
    return len(text)
