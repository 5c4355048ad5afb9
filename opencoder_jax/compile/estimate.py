"""How long a compiled step takes, and where its time goes, as far as that can be known without the chip.

The program of a TPU is printed in the order in which it is scheduled, and is played here instruction by instruction on
one clock: arithmetic takes the cycles that the compiler expects ("estimated_cycles"), a kernel what the caller says,
and what carries no estimate the time of its bytes through the memory. A collective, or a copy between memories, that
was started early runs beside all that; what the program then waits for is the part that nothing overlapped. A loop's
body is played once and counts as often as it runs.

An estimate, not a measurement: contention for the memory, the kernels' waiting for their operands, the start of each
operation and the host are not in it. Links carry what they were measured to carry at best, shared by all groups of a
collective (links.py). What part of that a SparseCore keeps up with is the caller's to say.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from opencoder_jax.compile.chips import Topology
from opencoder_jax.compile.links import permute_seconds, rate
from opencoder_jax.compile.program.collectives import async_fusion, collective_in, kind_of, received, ticket_of
from opencoder_jax.compile.program.hlo import COLLECTIVES, CompiledProgram, Computation, Instruction

# The parts of a step: name scopes of the model and the step (decoder.py, loss.py, step.py), in the order of the table.
PARTS = ("input", "attention", "ffn", "head and loss", "optimizer", "other", "copies", "collectives")
SCOPES = {"embed": "input", "attention": "attention", "ffn": "ffn", "loss": "head and loss", "optimizer": "optimizer"}
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id", "replica-id", "after-all"}
FREE |= {"opt-barrier", "add-dependency", "iota"}
SCALAR = 512  # bytes; what is smaller belongs to the scalar unit


@dataclass
class Traffic:
    """The collectives of one kind in a step, on one chip."""

    count: int = 0
    bytes: float = 0.0  # that a chip takes in
    seconds: float = 0.0  # on the links
    waited: float = 0.0  # of them, not overlapped


@dataclass
class Estimate:
    """Seconds of a step by part, its collectives by kind, and the kernels by name."""

    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    traffic: dict[str, Traffic] = field(default_factory=lambda: defaultdict(Traffic))
    kernels: dict[str, tuple[int, float]] = field(default_factory=dict)  # runs, and seconds of one
    unknown: set[str] = field(default_factory=set)  # loops and kernels without an estimate
    sparse: bool = False  # whether SparseCores carry out collectives

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())


def part_of(source: str) -> str:
    """The part of a step that an instruction belongs to, by the scopes in its `op_name`; the innermost counts."""
    found = re.findall(rf"\b({'|'.join(SCOPES)})\b", source)
    return SCOPES[found[-1]] if found else "other"


def estimate(
    program: CompiledProgram,
    topology: Topology,
    positions: Sequence[tuple[int, ...]],
    kernels: Mapping[str, float],
    sparse_cores: float = 1.0,
    turns: int = 1,
) -> Estimate:
    """Plays a program that was compiled for `topology`.

    Args:
        positions: of each of the program's devices: slice, then coordinates.
        kernels: cycles of one run of each Pallas kernel, by its name in the program (without its number).
        sparse_cores: of the links' rate, the share that a SparseCore keeps up with.
        turns: of a loop that doesn't tell how often it runs.
    """
    player = _Player(program, topology, positions, kernels, sparse_cores, turns)
    player.play(program.entry, 1)
    return player.result


class _Player:
    def __init__(
        self,
        program: CompiledProgram,
        topology: Topology,
        positions: Sequence[tuple[int, ...]],
        kernels: Mapping[str, float],
        sparse_cores: float,
        turns: int,
    ):
        self.program, self.topology, self.positions, self.kernels = program, topology, positions, kernels
        self.sparse_cores, self.turns = sparse_cores, turns
        self.rates: dict[tuple[tuple[int, ...], ...], float] = {}
        self.result = Estimate()
        self.now = 0.0
        self.free: dict[str, float] = defaultdict(float)  # when each link and the copy engine will be idle
        self.pending: dict[str, tuple[float, str]] = {}  # what was started: when it ends, and its kind
        self.prepared: dict[str, Instruction] = {}  # what a SparseCore was told of, and waits for its operands

    def play(self, computation: Computation, runs: int) -> None:
        """Moves the clock over one run of a computation that runs so often in a step."""
        for instruction in computation.instructions:
            opcode = instruction.opcode
            if opcode == "while":
                self._loop(instruction, computation, runs)
            elif opcode in ("call", "async-call") and (called := instruction.called("to_apply")):
                self.play(self.program.computations[called], runs)
            elif opcode == "conditional":
                self.result.unknown.add(f"{instruction.name} (a conditional; taken to cost nothing)")
            elif opcode == "async-start" and not instruction.operands:
                self.prepared[instruction.name] = instruction
            elif opcode == "async-update":
                self._update(instruction, runs)
            elif opcode.endswith("-start") or async_fusion(self.program, instruction) == "Start":
                self._start(instruction, runs)
            elif opcode.endswith("-done") or async_fusion(self.program, instruction) == "Done":
                self._done(instruction, runs)
            elif opcode not in FREE:
                collective = collective_in(self.program, instruction)
                if collective and ticket_of(collective) not in self.pending:  # alone, or fused with what it feeds
                    self._wait(self._start(instruction, runs), runs)
                if opcode in COLLECTIVES:
                    continue
                self._spend(part_of(instruction.source), self._seconds(instruction, computation, runs), runs)

    def _spend(self, part: str, seconds: float, runs: int) -> None:
        self.now += seconds
        self.result.parts[part] += seconds * runs

    def _loop(self, loop: Instruction, outside: Computation, runs: int) -> None:
        trips = self.program.trips(loop, outside)
        if trips is None:
            times = "once" if self.turns == 1 else f"{self.turns} times"
            self.result.unknown.add(f"{loop.name} (how often the loop runs; taken to run {times})")
            trips = self.turns
        began = self.now
        self.play(self.program.computations[loop.called("body") or ""], runs * trips)
        self.now = began + (self.now - began) * trips

    def _seconds(self, instruction: Instruction, where: Computation, runs: int) -> float:
        """What an instruction takes that runs on the chip's own units."""
        if instruction.opcode == "custom-call":
            is_kernel = 'custom_call_target="tpu_custom_call"' in instruction.text
            return self._kernel(instruction, runs) if is_kernel else 0.0
        if instruction.cycles is not None:
            return instruction.cycles / self.topology.chip.clock
        operands = [where.by_name[name].bytes for name in instruction.operands if name in where.by_name]
        moved = instruction.bytes + sum(operands)
        if instruction.opcode == "dynamic-update-slice":  # in place
            moved = 2 * operands[1]
        return 0.0 if moved <= SCALAR else moved / self.topology.chip.memory_bandwidth

    def _kernel(self, call: Instruction, runs: int) -> float:
        name = re.sub(r"[.\d]+$", "", call.name)
        if name not in self.kernels:
            self.result.unknown.add(f"{name} (a kernel of unknown cost; taken to cost nothing)")
        seconds = self.kernels.get(name, 0.0) / self.topology.chip.clock
        before, _ = self.result.kernels.get(name, (0, 0.0))
        self.result.kernels[name] = before + runs, seconds
        return seconds

    def _update(self, update: Instruction, runs: int) -> None:
        """What was prepared begins with the operands that are handed to it here; whatever it is, it takes this name."""
        before = update.operands[0]
        if (prepared := self.prepared.pop(before, None)) is not None:
            self._start(prepared, runs)
        if before in self.pending:
            self.pending[update.name] = self.pending.pop(before)

    def _start(self, instruction: Instruction, runs: int) -> str:
        """Notes when what is started will have ended; returns the ticket that `_wait` takes."""
        collective = collective_in(self.program, instruction)
        ticket = instruction.name if instruction.opcode == "async-start" else ticket_of(collective) or instruction.name
        if collective is None:
            self.pending[ticket] = self.now, "copies"  # how much is copied, its end says
            return ticket
        kind = kind_of(self.program, instruction, collective)
        # Permutes of opposite directions use the two directions of a link.
        engine = str(collective.groups[:1]) if kind == "collective-permute" else "links"
        taken, seconds = self._transfer(kind, collective)
        if 'async_execution_thread="sparsecore"' in instruction.text:
            self.result.sparse = True
            seconds /= self.sparse_cores
        traffic = self.result.traffic[kind]
        traffic.count += runs
        traffic.bytes += taken * runs
        traffic.seconds += seconds * runs
        self.free[engine] = max(self.free[engine], self.now) + seconds
        self.pending[ticket] = self.free[engine], kind
        return ticket

    def _done(self, instruction: Instruction, runs: int) -> None:
        ticket = ticket_of(collective_in(self.program, instruction)) if instruction.opcode == "fusion" else None
        ticket = ticket or instruction.operands[0]
        if (began := self.pending.get(ticket)) and began[1] == "copies":
            self.free["copies"] = max(self.free["copies"], began[0])
            self.free["copies"] += instruction.bytes / self.topology.chip.memory_bandwidth
            self.pending[ticket] = self.free["copies"], "copies"
        self._wait(ticket, runs)

    def _wait(self, ticket: str, runs: int) -> None:
        end, kind = self.pending.pop(ticket, (self.now, "copies"))
        waited = max(0.0, end - self.now)
        self._spend("copies" if kind == "copies" else "collectives", waited, runs)
        if kind != "copies":
            self.result.traffic[kind].waited += waited * runs

    def _transfer(self, kind: str, collective: Instruction) -> tuple[float, float]:
        """The bytes that a chip takes in, and the seconds that the links need for them."""
        groups = collective.groups or (tuple(range(len(self.positions))),)
        taken = received(kind, collective, len(groups[0]))
        if kind == "collective-permute":
            pairs = [(self.positions[a], self.positions[b]) for a, b in groups]
            return taken, permute_seconds(self.topology, pairs, taken)
        if groups not in self.rates:
            placed = [[self.positions[device] for device in group] for group in groups]
            self.rates[groups] = rate(self.topology, placed)
        seconds = taken / self.rates[groups]
        if kind.endswith("all-to-all"):
            # Each chip's own array crosses a quarter of the longest ring on average.
            places = zip(*(self.positions[device] for device in groups[0]), strict=True)
            seconds *= max(1.0, max(len(set(axis)) for axis in places) / 4)
        return taken, seconds
