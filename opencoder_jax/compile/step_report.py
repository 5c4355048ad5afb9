"""What a compiled step takes, as a table for people and as figures for JSON. Bytes, FLOPs and seconds are of one chip.

Memory, collectives and kernels are facts. The time of a step on TPUs is an estimate, from the compiler's own figures
(estimate.py). A GPU's program carries no such figures, so only the least time is given: products at the GPU's peak and
the collectives at the links' rates take so long at least. How far a step stays above that, only a GPU can tell.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from opencoder_jax.compile.chips import GIB, Cluster, Topology
from opencoder_jax.compile.estimate import Estimate, Traffic, estimate
from opencoder_jax.compile.kernels import kernel_cycles
from opencoder_jax.compile.lower import Compiled, positions_of
from opencoder_jax.model.flops import FORMULA
from opencoder_jax.progress import waiting

# Of a GPU's memory; what JAX takes of it by default (XLA_PYTHON_CLIENT_MEM_FRACTION).
JAX_TAKES = 0.75


def report_on(compiled: Compiled, sparse_cores: float = 0.5) -> "TpuReport | GpuReport":
    """The report of a step. For TPUs its kernels are compiled once more, alone, for their schedules.

    Args:
        sparse_cores: of the links' rate, the least that a TPU's SparseCores are taken to keep up with.
    """
    chips = compiled.step.chips
    if isinstance(chips, Cluster):
        return GpuReport(compiled, chips)
    with waiting("the kernels are compiled once more, for their schedules"):
        kernels = kernel_cycles(compiled.jaxpr, chips)
    positions = positions_of(compiled.step.mesh.devices)
    best, worst = (estimate(compiled.program, chips, positions, kernels.cycles, share) for share in (1.0, sparse_cores))
    return TpuReport(compiled, chips, best, worst.seconds, sparse_cores, kernels.least)


@dataclass(frozen=True)
class TpuReport:
    """A step on TPUs, and how long it would take."""

    compiled: Compiled
    chips: Topology
    estimate: Estimate  # with SparseCores that keep up with the links
    slowest: float  # seconds, if they keep up with `sparse_cores` of the links' rate
    sparse_cores: float
    least: frozenset[str]  # kernels whose time is a lower bound

    @property
    def mfu(self) -> float:
        """Estimated, by the formula of flops.py."""
        return self._mfu_of(self.estimate.seconds)

    def _mfu_of(self, seconds: float) -> float:
        return self.compiled.model_flops / seconds / self.chips.chip.peak

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return _figures(self.compiled) | {
            "estimated_seconds": self.estimate.parts,
            "collectives": {kind: dataclasses.asdict(of) for kind, of in self.estimate.traffic.items()},
            "kernels": {
                name: {"runs": n, "seconds": s, "by_schedule": name not in self.least}
                for name, (n, s) in self.estimate.kernels.items()
            },
            "not_estimated": sorted(self.estimate.unknown),
            "estimated_mfu": self.mfu,
            "band": {
                "sparse_cores": [self.sparse_cores, 1.0],
                "seconds": [self.estimate.seconds, self.slowest],
                "mfu": [self._mfu_of(self.slowest), self.mfu],
            },
        }

    def table(self) -> str:
        """For people."""
        found, total, step = self.estimate, self.estimate.seconds, self.compiled.step
        at_most = "at most " if found.unknown or self.least else ""
        share = f"SparseCores keep up with {self.sparse_cores:g} of the links' rate"
        band = f"to {self.slowest:.3f}, if {share}" if found.sparse else "no SparseCore takes part"
        to = f" to {self._mfu_of(self.slowest):.3f}" if found.sparse else ""
        by = "by its schedule, compiled alone"
        kernels = [
            f"  {name[:30]:30}{n:9,}{1e3 * s:9.3f}  {'at least: FLOPs at peak' if name in self.least else by}"
            for name, (n, s) in found.kernels.items()
        ]
        return _table(
            self.compiled,
            "",
            [
                f"{'time of a step, estimated':32}{'s':>9}{'share':>8}",
                *(f"  {part:30}{s:9.3f}{s / total:8.1%}" for part, s in found.parts.items()),
                f"  {'in all':30}{total:9.3f}  {band}",
                "  copies and collectives: only what the chip waits for",
                "",
                f"{'collectives of a step':32}{'count':>9}{'GiB':>9}{'s':>9}{'waited':>9}",
                *(
                    f"  {kind:30}{of.count:9,}{of.bytes / GIB:9.2f}{of.seconds:9.3f}{of.waited:9.3f}"
                    for kind, of in sorted(found.traffic.items())
                ),
            ],
            [
                f"{'kernels':32}{'runs':>9}{'ms each':>9}",
                *(kernels or ["  none: XLA compiles all of it"]),
                *(f"  not estimated: {what}" for what in sorted(found.unknown)),
            ],
            [
                f"tokens/s of a chip: {step.rows * step.length / step.chips.size / total:,.0f}",
                f"MFU, estimated: {at_most}{self.mfu:.3f}{to} ({_peak(self.compiled)})",
            ],
        )


@dataclass(frozen=True)
class GpuReport:
    """A step on GPUs, and the least time that it can take."""

    compiled: Compiled
    chips: Cluster

    @property
    def traffic(self) -> dict[str, Traffic]:
        """The collectives by kind, at the links' rates."""
        kinds: dict[str, Traffic] = defaultdict(Traffic)
        for one in self.compiled.collectives:
            of = kinds[one.kind]
            of.count, of.bytes = of.count + one.runs, of.bytes + one.bytes
            of.seconds += self.chips.seconds(one.group, one.bytes)
        return dict(sorted(kinds.items()))

    @property
    def products(self) -> float:
        """Seconds that all products take at the peak."""
        return self.compiled.executed_flops / self.chips.chip.peak

    @property
    def communication(self) -> float:
        """Seconds that the collectives take at the links' rates."""
        return sum(of.seconds for of in self.traffic.values())

    @property
    def seconds(self) -> float:
        """Of a step, at least: collectives may run beside products."""
        return max(self.products, self.communication)

    @property
    def mfu(self) -> float:
        """At most."""
        return self.compiled.model_flops / self.seconds / self.chips.chip.peak

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return _figures(self.compiled) | {
            "collectives": {kind: {"count": of.count, "bytes": of.bytes} for kind, of in self.traffic.items()},
            "kernels": self.compiled.kernels,
            "least_seconds": {"products": self.products, "collectives": self.communication},
            "mfu_at_most": self.mfu,
        }

    def table(self) -> str:
        """For people."""
        roomy = sum(self.compiled.memory.values()) <= self.chips.chip.memory * JAX_TAKES
        return _table(
            self.compiled,
            "" if roomy else f"; JAX takes {JAX_TAKES:.0%} by default: set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95",
            [
                f"{'collectives of a step':32}{'count':>9}{'GiB':>9}{'s at least':>12}",
                *(
                    f"  {kind:30}{of.count:9,}{of.bytes / GIB:9.2f}{of.seconds:12.3f}"
                    for kind, of in self.traffic.items()
                ),
            ],
            [f"{'kernels':32}{'runs':>9}", *(f"  {name[:30]:30}{n:9,}" for name, n in self.compiled.kernels.items())],
            [
                f"time of a step, at least: {self.seconds:.3f} s (products at the peak {self.products:.3f}, collectives"
                f" at the links' rates {self.communication:.3f}, beside each other; nothing else is counted)",
                f"MFU, at most: {self.mfu:.3f} ({_peak(self.compiled)})",
            ],
        )


def _figures(compiled: Compiled) -> dict[str, Any]:
    step = compiled.step
    return {
        "topology": str(step.chips),
        "mesh": dict(step.mesh.shape),
        "rows": step.rows,
        "length": step.length,
        "microbatches": step.microbatches,
        "memory_bytes": compiled.memory,
        "model_flops": compiled.model_flops,
        "executed_flops": compiled.executed_flops,
        "unexplained_collectives": compiled.unexplained,
        "compile_seconds": compiled.seconds,
    }


def _table(compiled: Compiled, on_memory: str, time: Iterable[str], kernels: Iterable[str], end: Iterable[str]) -> str:
    step, chip = compiled.step, compiled.step.chips.chip
    axes = ", ".join(f"{axis} {size}" for axis, size in step.mesh.shape.items() if size > 1) or "1 chip"
    lines = [
        f"{step.chips}, {step.chips.size} chips: {axes}; {step.rows} rows of {step.length} in {step.microbatches}"
        f" microbatches, remat {step.recipe.train.remat}; compiled in {compiled.seconds:.0f} s",
        "",
        f"{'memory of a chip':32}{'GiB':>9}",
        *(f"  {kind:30}{size / GIB:9.2f}" for kind, size in compiled.memory.items()),
        f"  {'in all, it fits':30}{sum(compiled.memory.values()) / GIB:9.2f}  of {chip.memory / GIB:.0f}{on_memory}",
        "",
        *time,
        *(f"  not asked for: {what}" for what in compiled.unexplained),
        "",
        *kernels,
        "",
        f"FLOPs of a chip: {compiled.model_flops:.4g} of the model, {compiled.executed_flops:.4g} carried out",
        *end,
    ]
    return "\n".join(lines)


def _peak(compiled: Compiled) -> str:
    return f"{FORMULA}; peak {compiled.step.chips.chip.peak / 1e12:.0f} TFLOP/s"
