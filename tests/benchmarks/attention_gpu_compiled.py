"""What the compilers make of the GPU attention kernels, on a machine that has no GPU: registers, spills, instructions.

    uv venv /tmp/cuda
    uv pip install --python /tmp/cuda/bin/python 'jax[cuda13]' nvidia-cuda-nvdisasm jaxtyping numpy
    /tmp/cuda/bin/python -m tests.benchmarks.attention_gpu_compiled --chip=hopper --shape=1.5B [--kernels=hopper]

One JSON line a kernel. Spilled registers, a kernel for Hopper without wgmma, or products that ptxas runs one after the
other ("serialized") say that something is wrong; nothing here says how fast a kernel is, which
`tests.benchmarks.attention_gpu` times on a GPU. Beside jax it needs NVIDIA's packages for CUDA 13 (4 GB), as
`jax[cuda13]` or this project's extra `cuda` bring them.

Where nvdisasm is there too, kernels for Hopper get an estimate, "loop": of the loop that most products are in, what one
step costs a warpgroup at least, in cycles of its quarter of a multiprocessor: on the tensor cores (a product of 64 x N
x 16 takes N / 4), in instructions issued (one a cycle), on the unit for exponentials and conversions (8 for a warp).
All grow alike with the warpgroups at work, so the tensor cores can't be busier than "fill", their share of the largest.
"beside" are the exponentials that stand where products of the same warpgroup are under way; the others need another's.
Masking, which most blocks don't need, doesn't count; neither does waiting, nor what shared memory can't deliver.
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
SLOW = ("MUFU.", "F2F.", "F2I.", "I2F.")  # instructions that 4 lanes of a quarter take at once


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


def kernels_of(chip: Chip, kernels: str, shape: str, dtype: str, dump: Path) -> Iterator[dict[str, object]]:
    """Compiles the forward and backward pass of a row, and reads what the compilers left in `dump`."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies

    from opencoder_jax.kernels.attention.gpu.blocks import hopper_blocks, triton_blocks
    from opencoder_jax.kernels.attention.gpu.hopper import attention as hopper
    from opencoder_jax.kernels.attention.gpu.triton import attention as triton

    topology = topologies.get_topology_desc("", platform="cuda", target_config=chip.text(), topology="1x1x1")
    device = topology.devices[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    heads, kv_heads, size, length = SHAPES[shape]
    if kernels == "hopper":
        mix = functools.partial(hopper.attention, blocks=hopper_blocks(size))
    else:
        mix = functools.partial(triton.attention, blocks=triton_blocks(chip.name, size, dtype))

    def gradients(q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> tuple[jax.Array, ...]:
        return jax.grad(lambda *x: mix(*x, positions).astype(jnp.float32).sum(), argnums=(0, 1, 2))(q, k, v)

    def struct(dtype: str, *axes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(axes, dtype, sharding=sharding)

    q, k = struct(dtype, 1, length, heads, size), struct(dtype, 1, length, kv_heads, size)
    with jax.set_mesh(jax.sharding.Mesh([device], ("fsdp",))):
        jax.jit(gradients).lower(q, k, k, struct("int32", 1, length)).compile()
    for file in sorted(dump.glob("*.ptx")):
        program = file.read_text()
        entry = re.search(r"\.entry (attention_\w+?)(?:_mosaic_gpu_kernel)?\(", program)
        if entry is not None:
            yield {"kernel": entry[1], "chip": chip.name, "shape": shape, "dtype": dtype, **assembled(file, program)}


def assembled(file: Path, program: str) -> dict[str, object]:
    """Figures of one kernel's PTX, and what ptxas says of it."""
    packages = importlib.import_module("nvidia.cu13")  # the packages of CUDA 13 share it
    programs = next(Path(folder) / "bin" for folder in packages.__path__)
    target = re.search(r"^\s*\.target (\w+)", program, re.MULTILINE)
    if target is None:
        raise ValueError(f"{file}: no .target")
    cubin = file.with_suffix(".cubin")
    command = [str(programs / "ptxas"), "-v", f"-arch={target[1]}", str(file), "-o", str(cubin)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    row: dict[str, object] = {
        "target": target[1],
        "registers": int(registers[1]) if registers else None,
        "spilled_bytes": sum(map(int, re.findall(r"(\d+) bytes spill", said))),
        "wgmma": len(re.findall(r"wgmma\.mma_async", program)),
        "mma": len(re.findall(r"\bmma\.sync", program)),
        "serialized": "serialized" in said,
    }
    if row["wgmma"] and (programs / "nvdisasm").exists():
        command = [str(programs / "nvdisasm"), "-c", str(cubin)]
        row["loop"] = loop(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return row


def loop(assembly: str) -> dict[str, float]:
    """The least that a step of the loop with most products costs a warpgroup; see the top."""
    labels: dict[str, int] = {}
    instructions: list[str] = []
    for line in assembly.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.search(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\d+ +)?(.*?) ;", line):
            instructions.append(instruction[1])
    jumps = [
        (at, labels[label[1]])
        for at, instruction in enumerate(instructions)
        if (label := re.match(r"BRA.*\((\.L_x_\d+)\)", instruction)) and label[1] in labels
    ]

    def products(start: int, end: int) -> list[int]:
        found = (re.match(r"HGMMA\.64x(\d+)x16", instruction) for instruction in instructions[start:end])
        return [int(size[1]) for size in found if size]

    # What a wait does when it has to stands behind the program, and jumps back into it: that's no loop.
    last = max(i for i, instruction in enumerate(instructions) if instruction.startswith("EXIT"))
    backward = [(target, at + 1) for at, target in jumps if target <= at < last]
    start, end = max(backward, key=lambda both: (len(products(*both)), both[0] - both[1]))
    skipped = {
        i
        for at, target in jumps
        if start <= at < target <= end and any("ISETP" in instruction for instruction in instructions[at:target])
        if not products(at, target)
        for i in range(at + 1, target)
    }
    body = [instructions[i] for i in range(start, end) if i not in skipped]
    tensor = sum(products(start, end)) / 4
    slow = beside = under_way = 0
    for instruction in body:
        if instruction.startswith("HGMMA"):
            under_way = 1
        elif instruction.startswith("WARPGROUP.DEPBAR.LE gsb0, 0x0"):
            under_way = 0
        elif instruction.startswith(SLOW):
            slow += 8
            beside += 8 * under_way
    fill = tensor / max(tensor, len(body), slow)
    return {"tensor": tensor, "issued": len(body), "exponentials": slow, "beside": beside, "fill": round(fill, 2)}


def main() -> None:
    """Compiles one shape for one chip in this process: where the compilers write must be set before JAX starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", choices=CHIPS, default="hopper")
    parser.add_argument("--shape", choices=SHAPES, default="1.5B")
    parser.add_argument("--kernels", choices=("triton", "hopper"), default="triton")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args()
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
    with tempfile.TemporaryDirectory() as dump:
        os.environ["XLA_FLAGS"] = f"--xla_dump_to={dump} --xla_dump_emitter_re=.*"  # Triton's programs
        os.environ |= {"MOSAIC_GPU_DUMP_TO": dump, "MOSAIC_GPU_DUMP_PTX": "1"}
        try:
            for package in ("jax_plugins.xla_cuda13", "nvidia.cu13"):
                importlib.import_module(package)
        except ImportError:
            sys.exit("compiling for a GPU needs NVIDIA's packages: uv pip install 'jax[cuda13]' (4 GB)")
        for row in kernels_of(CHIPS[options.chip], options.kernels, options.shape, options.dtype, Path(dump)):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
