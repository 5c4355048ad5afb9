"""What the compilers make of the GPU attention kernels, on a machine that has no GPU: registers, spills, instructions.

    uv venv /tmp/cuda && uv pip install --python /tmp/cuda/bin/python 'jax[cuda13]' flax optax numpy
    /tmp/cuda/bin/python -m tests.benchmarks.attention_gpu_compiled --chip=hopper --shape=1.5B

One JSON line a kernel. Spilled registers, or a kernel for Hopper without wgmma, say that blocks are too large or of the
wrong shape; they don't say how fast a kernel is, which `tests.benchmarks.attention_gpu` times on a GPU. Beside jax it
needs NVIDIA's packages for CUDA 13 (4 GB), as `jax[cuda13]` or this project's extra `cuda` bring them.
"""

import argparse
import dataclasses
import functools
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Heads, key heads, head size, row length.
SHAPES = {
    "1.5B": (14, 14, 160, 4096),
    "8B": (32, 8, 128, 8192),
    "64": (16, 4, 64, 4096),
    "256": (8, 2, 256, 4096),
}
KERNELS = ("attention_forward", "attention_backward_keys", "attention_backward_queries")


@dataclasses.dataclass(frozen=True)
class Chip:
    """What the compilers ask about a GPU. The figures are NVIDIA's, from its architectures' white papers."""

    name: str  # as JAX would call it
    capability: tuple[int, int]
    cores: int  # multiprocessors
    shared: int  # bytes of shared memory of one
    threads: int  # that one holds at once
    cache: int  # bytes, level 2
    bandwidth: int  # bytes/s
    memory: int  # bytes

    def text(self) -> str:
        """A GpuTargetConfigProto."""
        return f"""
        gpu_device_info {{
          cuda_compute_capability {{ major: {self.capability[0]} minor: {self.capability[1]} }}
          threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {self.threads}
          shared_memory_per_block: 49152 shared_memory_per_core: {self.shared}
          shared_memory_per_block_optin: {self.shared - 1024}
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          core_count: {self.cores} fpus_per_core: 128 clock_rate_ghz: 1.5
          memory_bandwidth: {self.bandwidth} l2_cache_size: {self.cache} device_memory_size: {self.memory}
        }}
        platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} device_description_str: "{self.name}"
        """


CHIPS = {
    "hopper": Chip("NVIDIA H100 80GB HBM3", (9, 0), 132, 233472, 2048, 52428800, 3350 * 10**9, 80 * 10**9),
    "ampere": Chip("NVIDIA A100-SXM4-80GB", (8, 0), 108, 167936, 2048, 41943040, 2039 * 10**9, 80 * 10**9),
    "ada": Chip("NVIDIA L40", (8, 9), 142, 102400, 1536, 100663296, 864 * 10**9, 48 * 10**9),
}


def kernels_of(chip: Chip, shape: str, dtype: str, dump: Path) -> Iterator[dict[str, object]]:
    """Compiles the forward and backward pass of a row, and reads what the compilers left in `dump`."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies

    from kernels.attention import gpu

    topology = topologies.get_topology_desc("", platform="cuda", target_config=chip.text(), topology="1x1x1")
    device = topology.devices[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    heads, kv_heads, size, length = SHAPES[shape]
    mix = functools.partial(gpu.attention, blocks=gpu.blocks_for(chip.name, size, dtype))

    def gradients(q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> tuple[jax.Array, ...]:
        return jax.grad(lambda *x: mix(*x, positions).astype(jnp.float32).sum(), argnums=(0, 1, 2))(q, k, v)

    def struct(dtype: str, *axes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(axes, dtype, sharding=sharding)

    q, k = struct(dtype, 1, length, heads, size), struct(dtype, 1, length, kv_heads, size)
    with jax.set_mesh(jax.sharding.Mesh([device], ("fsdp",))):
        jax.jit(gradients).lower(q, k, k, struct("int32", 1, length)).compile()
    for file in sorted(dump.glob("*.ptx")):
        program = file.read_text()
        for kernel in KERNELS:
            if f".entry {kernel}(" in program:
                yield {"kernel": kernel, "chip": chip.name, "shape": shape, "dtype": dtype, **assembled(file, program)}


def assembled(file: Path, program: str) -> dict[str, object]:
    """Figures of one kernel's PTX, and what ptxas says of it."""
    packages = importlib.import_module("nvidia.cu13")  # the packages of CUDA 13 share it
    ptxas = next(Path(folder) / "bin" / "ptxas" for folder in packages.__path__)
    target = re.search(r"^\.target (\w+)", program, re.MULTILINE)
    if target is None:
        raise ValueError(f"{file}: no .target")
    command = [str(ptxas), "-v", f"-arch={target[1]}", str(file), "-o", os.devnull]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    return {
        "target": target[1],
        "registers": int(registers[1]) if registers else None,
        "spilled_bytes": sum(map(int, re.findall(r"(\d+) bytes spill", said))),
        "wgmma": len(re.findall(r"wgmma\.mma_async", program)),
        "mma": len(re.findall(r"\bmma\.sync", program)),
    }


def main() -> None:
    """Compiles one shape for one chip in this process: where the compilers write must be set before JAX starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", choices=CHIPS, default="hopper")
    parser.add_argument("--shape", choices=SHAPES, default="1.5B")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args()
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
    with tempfile.TemporaryDirectory() as dump:
        os.environ["XLA_FLAGS"] = f"--xla_dump_to={dump} --xla_dump_emitter_re=.*"
        try:
            for package in ("jax_plugins.xla_cuda13", "nvidia.cu13"):
                importlib.import_module(package)
        except ImportError:
            sys.exit("compiling for a GPU needs NVIDIA's packages: uv pip install 'jax[cuda13]' (4 GB)")
        for row in kernels_of(CHIPS[options.chip], options.shape, options.dtype, Path(dump)):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
