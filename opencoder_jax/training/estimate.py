"""How long a compiled step takes, and where its time goes, as far as that can be known without the chip.

The program of a TPU is printed in the order in which it is scheduled, and is played here instruction by instruction on
one clock: arithmetic takes the cycles that the compiler expects ("estimated_cycles"), a kernel what the caller says,
and what carries no estimate the time of its bytes through the memory. A collective, or a copy between memories, that
was started early runs beside all that; what the program then waits for is the part that nothing overlapped. A loop's
body is played once and counts as often as it runs.

An estimate, not a measurement: contention for the memory, the kernels' waiting for their operands, the start of each
operation and the host are not in it, and links carry what they were measured to carry at best.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from opencoder_jax.training.chips import Topology
from opencoder_jax.training.hlo import COLLECTIVES, Computation, Instruction, Program, shape_bytes

# The parts of a step: name scopes of the model and the step (decoder.py, loss.py, step.py), in the order of the table.
PARTS = ("input", "attention", "ffn", "head and loss", "optimizer", "other", "copies", "collectives")
SCOPES = {"embed": "input", "attention": "attention", "ffn": "ffn", "loss": "head and loss", "optimizer": "optimizer"}
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id", "replica-id", "after-all"}
FREE |= {"opt-barrier", "add-dependency", "iota", "async-update"}
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

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())


def part_of(source: str) -> str:
    """The part of a step that an instruction belongs to, by the scopes in its `op_name`; the innermost counts."""
    found = re.findall(rf"\b({'|'.join(SCOPES)})\b", source)
    return SCOPES[found[-1]] if found else "other"


def estimate(
    program: Program, topology: Topology, places: Sequence[tuple[int, ...]], kernels: Mapping[str, float]
) -> Estimate:
    """Plays a program that was compiled for `topology`.

    Args:
        places: of each of the program's devices: slice, then coordinates.
        kernels: cycles of one run of each Pallas kernel, by its name in the program (without its number).
    """
    player = _Player(program, topology, places, kernels)
    player.play(program.entry, 1)
    return player.result


class _Player:
    def __init__(
        self, program: Program, topology: Topology, places: Sequence[tuple[int, ...]], kernels: Mapping[str, float]
    ):
        self.program, self.topology, self.places, self.kernels = program, topology, places, kernels
        self.result = Estimate()
        self.now = 0.0
        self.free: dict[str, float] = defaultdict(float)  # when each link and the copy engine will be idle
        self.pending: dict[str, tuple[float, str]] = {}  # what was started: when it ends, and its kind

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
            elif opcode.endswith("-start") or _async_fusion(self.program, instruction) == "Start":
                self._start(instruction, runs)
            elif opcode.endswith("-done") or _async_fusion(self.program, instruction) == "Done":
                self._done(instruction, runs)
            elif opcode not in FREE:
                collective = _collective(self.program, instruction)
                if collective and _ticket(collective) not in self.pending:  # alone, or fused with what it feeds
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
            self.result.unknown.add(f"{loop.name} (how often the loop runs; taken to run once)")
        began = self.now
        self.play(self.program.computations[loop.called("body") or ""], runs * (trips or 1))
        self.now = began + (self.now - began) * (trips or 1)

    def _seconds(self, instruction: Instruction, where: Computation, runs: int) -> float:
        """What an instruction takes that runs on the chip's own units."""
        if instruction.opcode == "custom-call":
            return (
                self._kernel(instruction, runs) if 'custom_call_target="tpu_custom_call"' in instruction.text else 0.0
            )
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

    def _start(self, instruction: Instruction, runs: int) -> str:
        """Notes when what is started will have ended; returns the ticket that `_wait` takes."""
        collective = _collective(self.program, instruction)
        ticket = _ticket(collective) or instruction.name
        if collective is None:
            self.pending[ticket] = self.now, "copies"  # how much is copied, its end says
            return ticket
        scattered = _scattered(self.program, instruction)
        kind = "reduce-scatter" if scattered else collective.opcode.removesuffix("-start")
        # Permutes of opposite directions use the two directions of a link.
        engine = str(collective.groups[:1]) if kind == "collective-permute" else "links"
        taken, seconds = self._transfer(kind, collective)
        traffic = self.result.traffic[kind]
        traffic.count += runs
        traffic.bytes += taken * runs
        traffic.seconds += seconds * runs
        self.free[engine] = max(self.free[engine], self.now) + seconds
        self.pending[ticket] = self.free[engine], kind
        return ticket

    def _done(self, instruction: Instruction, runs: int) -> None:
        ticket = _ticket(_collective(self.program, instruction)) if instruction.opcode == "fusion" else None
        ticket = ticket or instruction.operands[0].removesuffix(".update")
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
        result = _moved(collective)
        group = collective.groups[0] if collective.groups else tuple(range(len(self.places)))
        size = len(group)
        if kind == "collective-permute":
            over_network = any(self.places[a][0] != self.places[b][0] for a, b in collective.groups)
            return result, result / (self.topology.chip.network if over_network else self.topology.chip.link)
        rate = self.topology.bandwidth([self.places[device] for device in group])
        share = (size - 1) / size
        if kind == "reduce-scatter":
            whole = result if collective.opcode.startswith("all-reduce") else result * size
            return whole * share, whole * share / rate
        if kind == "all-reduce":
            return 2 * result * share, 2 * result * share / rate
        if kind.endswith("all-to-all"):
            # Each chip's own array crosses a quarter of the longest ring on average.
            longest = max(len({self.places[device][axis] for device in group}) for axis in range(len(self.places[0])))
            return result * share, result * share * max(1.0, longest / 4) / rate
        return result * share, result * share / rate


def _moved(instruction: Instruction) -> float:
    """The bytes of the result; what is started has the shape (operands, results, flags)."""
    arrays = [size for size in shape_bytes(instruction.shape) if size > 4]
    return sum(arrays[len(arrays) // 2 :] if instruction.opcode.endswith("-start") else arrays)


def _collective(program: Program, instruction: Instruction) -> Instruction | None:
    """The collective that an instruction is, or that the computation which it calls holds."""
    if instruction.opcode.removesuffix("-start").removesuffix("-done") in COLLECTIVES:
        return instruction
    called = instruction.called("calls")
    inside = program.inside(called) if called else ()
    return next((x for x in inside if x.opcode in COLLECTIVES), None)


def _scattered(program: Program, instruction: Instruction) -> bool:
    """Whether an all-reduce was fused with the slice that a chip takes of its result: it sends no more than that."""
    called = instruction.called("calls") if instruction.opcode == "fusion" else None
    if called is None:
        return False
    return called.startswith("all-reduce-scatter") or any(
        (x.called("calls") or "").startswith("all-reduce-scatter") for x in program.inside(called)
    )


def _async_fusion(program: Program, instruction: Instruction) -> str | None:
    """Start or Done, for the fusions between which a TPU runs a collective beside others' arithmetic."""
    if instruction.opcode != "fusion" or (called := instruction.called("calls")) is None:
        return None
    for inside in program.inside(called):
        if found := re.search(r'custom_call_target="AsyncCollective(Start|Done)"', inside.text):
            return found[1]
    return None


def _ticket(collective: Instruction | None) -> str | None:
    """What joins the start and the end of a collective that was fused with others' arithmetic."""
    found = re.search(r"channel_id=(\d+)", collective.text) if collective else None
    return f"channel {found[1]}" if collective and found and not collective.opcode.endswith("-start") else None
