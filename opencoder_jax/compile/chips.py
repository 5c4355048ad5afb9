"""What is known of the chips that programs are compiled for, and how chips are linked.

Peaks stand in flops.py. Clocks are those at which a chip's matrix units reach its published peak, and the unit of the
compiler's cycle estimates. Memory: Google Cloud's TPU system architecture pages. Links and the data-centre network:
what one link carries one way, measured, as in "How to Scale Your Model" (jax-ml.github.io/scaling-book, chapter 2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from opencoder_jax.compile.gpus import GPUS
from opencoder_jax.model.flops import PEAK_FLOPS
from opencoder_jax.recipe import UserError

GIB = 2.0**30


@dataclass(frozen=True)
class Chip:
    """A chip as the compiler sees it: one device (half of a v7x)."""

    kind: str  # JAX's `Device.device_kind`
    clock: float  # cycles a second
    cores: int  # that JAX shows as one device
    memory: float  # bytes of HBM
    memory_bandwidth: float  # bytes a second
    link: float  # bytes a second, one link, one way
    network: float  # bytes a second between slices, a chip
    dimensions: int  # of the torus
    ring: int  # a dimension whose length is a multiple of this is closed to a ring

    @property
    def peak(self) -> float:
        """Dense bfloat16 FLOP/s."""
        return PEAK_FLOPS[self.kind]


CHIPS: Mapping[str, Chip] = {
    "v4": Chip("TPU v4", 1.05e9, 2, 32 * GIB, 1.2e12, 4.5e10, 6.25e9, 3, 4),
    "v5e": Chip("TPU v5 lite", 1.5e9, 1, 16 * GIB, 8.2e11, 4.5e10, 3.125e9, 2, 16),
    "v5p": Chip("TPU v5", 1.75e9, 2, 95 * GIB, 2.765e12, 9e10, 6.25e9, 3, 4),
    "v6e": Chip("TPU v6 lite", 1.75e9, 1, 32 * GIB, 1.64e12, 9e10, 1.25e10, 2, 16),
}


@dataclass(frozen=True)
class Topology:
    """`chip:AxBxC`, once or, in several slices that a data-centre network joins, `2x chip:AxBxC`."""

    name: str  # of the chip
    chip: Chip
    bounds: tuple[int, ...]  # chips along each dimension of a slice
    slices: int

    @classmethod
    def parse(cls, text: str) -> "Topology":
        """Reads `v5p:4x4x4` or `2*v5e:4x4` (two slices). Raises UserError, with the names that are known."""
        count, _, rest = text.rpartition("*")
        name, _, bounds = rest.partition(":")
        if name not in CHIPS:
            raise UserError(f"--topology={text}: unknown chip {name or rest!r}; known are {', '.join((*CHIPS, *GPUS))}")
        chip = CHIPS[name]
        sizes = bounds.split("x")
        if not all(size.isdecimal() and int(size) for size in (*sizes, count or "1")) or len(sizes) != chip.dimensions:
            example = "x".join("4" * chip.dimensions)
            raise UserError(f"--topology={text}: write {name}:{example}, or 2*{name}:{example} for two slices")
        return cls(name, chip, tuple(map(int, sizes)), int(count or 1))

    def __str__(self) -> str:
        several = f"{self.slices}*" if self.slices > 1 else ""
        return f"{several}{self.name}:{'x'.join(map(str, self.bounds))}"

    @property
    def size(self) -> int:
        """Chips in all slices."""
        return self.slices * prod(self.bounds)

    @property
    def rings(self) -> tuple[bool, ...]:
        """Which dimensions are closed to a ring."""
        return tuple(size % self.chip.ring == 0 for size in self.bounds)

    def bandwidth(self, places: Sequence[tuple[int, ...]]) -> float:
        """Bytes a second that flow into the worst placed of some chips when all of them exchange data.

        Args:
            places: of each chip: slice, then coordinates.
        """
        if len({place[0] for place in places}) > 1:
            return self.chip.network
        links = 0
        for axis, (size, ring) in enumerate(zip(self.bounds, self.rings, strict=True), 1):
            extent = len({place[axis] for place in places})
            links += 0 if extent == 1 else 2 if ring and extent == size > 2 else 1
        return max(links, 1) * self.chip.link
