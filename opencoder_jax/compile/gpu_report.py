"""What is read from a step compiled for GPUs: memory, collectives, kernels; and the least time that it can take.

A GPU's program carries no estimate of its time as a TPU's does, so none is given: products at the GPU's peak and the
collectives at the links' take so long at least. How far a step stays above that, only a GPU can tell.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from opencoder_jax.compile.ahead_of_time import Compiled
from opencoder_jax.compile.collectives import Collective
from opencoder_jax.compile.gpus import GIB, Cluster
from opencoder_jax.model.flops import FORMULA

# Of the GPU's memory; what JAX takes of it by default (XLA_PYTHON_CLIENT_MEM_FRACTION).
JAX_TAKES = 0.75


@dataclass(frozen=True)
class GpuReport:
    """What a step takes, of one GPU."""

    step: Compiled
    cluster: Cluster

    @property
    def products(self) -> float:
        """Seconds that all products take at the peak."""
        return self.step.executed_flops / self.cluster.chip.peak

    @property
    def communication(self) -> float:
        """Seconds that the collectives take at the links' rates."""
        return sum(self._seconds(one) for one in self.step.collectives)

    @property
    def least(self) -> float:
        """Seconds that a step takes at least: collectives may run beside products."""
        return max(self.products, self.communication)

    @property
    def most_mfu(self) -> float:
        return self.step.model_flops / self.least / self.cluster.chip.peak

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return self.step.figures() | {
            "collectives": {
                kind: {"count": sum(x.runs for x in several), "bytes": sum(x.bytes for x in several)}
                for kind, several in self._by_kind().items()
            },
            "kernels": self.step.kernels,
            "least_seconds": {"products": self.products, "collectives": self.communication},
            "mfu_at_most": self.most_mfu,
        }

    def table(self) -> str:
        """For people."""
        step, chip, used = self.step, self.cluster.chip, sum(self.step.memory.values())
        roomy = used <= chip.memory * JAX_TAKES
        lines = [
            step.title(),
            "",
            f"{'memory of a GPU':32}{'GiB':>9}",
            *(f"  {kind:30}{size / GIB:9.2f}" for kind, size in step.memory.items()),
            f"  {'in all, it fits':30}{used / GIB:9.2f}  of {chip.memory / GIB:.0f}"
            + ("" if roomy else f"; JAX takes {JAX_TAKES:.0%} by default: set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95"),
            "",
            f"{'collectives of a step':32}{'count':>9}{'GiB':>9}{'s at least':>12}",
            *(
                f"  {kind:30}{sum(x.runs for x in several):9,}{sum(x.bytes for x in several) / GIB:9.2f}"
                f"{sum(map(self._seconds, several)):12.3f}"
                for kind, several in sorted(self._by_kind().items())
            ),
            *(f"  not asked for: {what}" for what in step.unexplained),
            "",
            f"{'kernels':32}{'runs':>9}",
            *(f"  {name[:30]:30}{runs:9,}" for name, runs in sorted(self.step.kernels.items())),
            "",
            f"FLOPs of a GPU: {step.model_flops:.4g} of the model, {step.executed_flops:.4g} carried out",
            f"time of a step, at least: {self.least:.3f} s (products at the peak {self.products:.3f}, collectives at"
            f" the links' rates {self.communication:.3f}, beside each other; nothing else is counted)",
            f"MFU, at most: {self.most_mfu:.3f} ({FORMULA}; peak {chip.peak / 1e12:.0f} TFLOP/s)",
        ]
        return "\n".join(lines)

    def _by_kind(self) -> dict[str, list[Collective]]:
        by_kind = defaultdict(list)
        for one in self.step.collectives:
            by_kind[one.kind].append(one)
        return by_kind

    def _seconds(self, one: Collective) -> float:
        return self.cluster.seconds(one.group, one.bytes)
