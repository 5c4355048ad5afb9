"""What is known of the chips that programs are compiled for, and how chips are linked. Compiling for them needs none.

Peaks stand in model/flops.py.

Of TPUs: clocks are those at which a chip's matrix units reach its published peak, and the unit of the compiler's cycle
estimates. Memory: Google Cloud's TPU system architecture pages. Links and the data-centre network: what one link
carries one way, measured, as in "How to Scale Your Model" (jax-ml.github.io/scaling-book, chapter 2).

Of GPUs: NVIDIA's white papers and data sheets of the SXM boards; memory as CUDA counts it. Links are what NVLink
carries one way, and hosts have eight GPUs with a network adapter each, as DGX machines do.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from opencoder_jax.model.flops import PEAK_FLOPS
from opencoder_jax.recipe import UserError

GIB = 2.0**30
HOST = 8  # GPUs


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


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    kind: str  # JAX's `Device.device_kind`
    capability: tuple[int, int]
    cores: int  # multiprocessors
    shared: int  # bytes of shared memory of one of them
    cache: int  # bytes, level 2
    memory: float  # bytes
    memory_bandwidth: float  # bytes a second
    link: float  # bytes a second to the GPUs of its host, one way
    network: float  # bytes a second to other hosts, one way

    @property
    def peak(self) -> float:
        """Dense bfloat16 FLOP/s."""
        return PEAK_FLOPS[self.kind]

    @property
    def target(self) -> str:
        """What the compiler asks of a GPU, as a GpuTargetConfigProto's text."""
        return f"""
        gpu_device_info {{
          cuda_compute_capability {{ major: {self.capability[0]} minor: {self.capability[1]} }}
          threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
          shared_memory_per_block: 49152 shared_memory_per_core: {self.shared}
          shared_memory_per_block_optin: {self.shared - 1024}
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          core_count: {self.cores} fpus_per_core: 128 clock_rate_ghz: 1.5
          memory_bandwidth: {int(self.memory_bandwidth)} l2_cache_size: {self.cache}
          device_memory_size: {int(self.memory)}
        }}
        platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} device_description_str: "{self.kind}"
        """


_HOPPER = ((9, 0), 132, 233472, 52428800)
GPUS: Mapping[str, Gpu] = {
    "a100": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 167936, 41943040, 79.1 * GIB, 2.039e12, 3e11, 2.5e10),
    "h100": Gpu("NVIDIA H100 80GB HBM3", *_HOPPER, 79.1 * GIB, 3.35e12, 4.5e11, 5e10),
    "h200": Gpu("NVIDIA H200", *_HOPPER, 139.8 * GIB, 4.8e12, 4.5e11, 5e10),
    "h800": Gpu("NVIDIA H800", *_HOPPER, 79.1 * GIB, 3.35e12, 2e11, 5e10),
}


@dataclass(frozen=True)
class Cluster:
    """`gpu:N`: so many GPUs, one host's or several hosts' of eight."""

    name: str
    chip: Gpu
    size: int

    @classmethod
    def parse(cls, text: str) -> "Cluster":
        """Reads `h100:8` or `h100:512` (64 hosts). Raises UserError."""
        name, _, count = text.partition(":")
        if name not in GPUS or not count.isdecimal() or not int(count) or (int(count) > HOST and int(count) % HOST):
            raise UserError(f"--topology={text}: write {name}:8, or another number up to {HOST} or a multiple of it")
        return cls(name, GPUS[name], int(count))

    def __str__(self) -> str:
        return f"{self.name}:{self.size}"

    @property
    def hosts(self) -> int:
        return -(-self.size // HOST)

    def seconds(self, group: Sequence[int], received: float) -> float:
        """The least time in which each GPU of a group can take in `received` bytes from the others.

        GPUs of a host share what comes from other hosts among their adapters, and pass it on.
        """
        of_hosts = Counter(gpu // HOST for gpu in group)
        least = received / self.chip.link
        if len(of_hosts) > 1:
            here = max(of_hosts.values())
            from_outside = received * (len(group) - here) / (len(group) - 1)
            least = max(least, from_outside / here / self.chip.network)
        return least


def parse_chips(text: str) -> Topology | Cluster:
    """Reads what `--topology` takes: TPUs, or GPUs. Raises UserError."""
    return Cluster.parse(text) if text.partition(":")[0] in GPUS else Topology.parse(text)
