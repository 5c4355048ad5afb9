"""The estimate of any program that was compiled for TPUs, another trainer's among them, by the clock of `compile`.

    python -m tests.benchmarks.program_estimates --program=FILE --topology=v5e:16x16 --mesh=1,256
        --kernel=splash_mha_fwd=1200000 --flops=2.1e15

FILE is what `compile --text=FILE` keeps, or XLA's dump `…after_codegen.txt` (XLA_FLAGS=--xla_dump_to=DIR
--xla_dump_hlo_as_text). The program's devices are placed as `mesh_utils.create_device_mesh` places a mesh of the sizes
given, as MaxText and we do. Kernels that XLA doesn't cost take the cycles that are given, or nothing, which is said.
"""

import argparse
import os
from pathlib import Path

from opencoder_jax.compile.compile import ENVIRONMENT

os.environ.update(ENVIRONMENT)

from jax.experimental import mesh_utils

from opencoder_jax.compile.chips import GIB, Topology
from opencoder_jax.compile.estimate import estimate
from opencoder_jax.compile.lower import positions_of, tpus
from opencoder_jax.compile.program.hlo import CompiledProgram


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--topology", type=Topology.parse, required=True)
    parser.add_argument("--mesh", help="sizes of the mesh's axes; default: one axis of all chips")
    parser.add_argument("--kernel", action="append", default=[], metavar="NAME=CYCLES", help="of one run on one chip")
    parser.add_argument("--flops", type=float, help="of the model in a step, on one chip, for the MFU")
    options = parser.parse_args()
    topology: Topology = options.topology
    sizes = tuple(map(int, options.mesh.split(","))) if options.mesh else (topology.size,)
    devices = mesh_utils.create_device_mesh(sizes, tpus(topology), allow_split_physical_axes=True)
    positions = positions_of(devices)
    kernels = {name: float(cycles) for name, _, cycles in (kernel.partition("=") for kernel in options.kernel)}
    program = CompiledProgram(options.program.read_text())
    best, worst = (estimate(program, topology, positions, kernels, share) for share in (1.0, 0.5))
    for part, seconds in best.parts.items():
        print(f"{part:20}{seconds:9.3f} s")
    for kind, of in sorted(best.traffic.items()):
        print(f"{kind:20}{of.seconds:9.3f} s on the links, {of.waited:.3f} waited for, {of.bytes / GIB:.2f} GiB")
    for name, (runs, seconds) in best.kernels.items():
        print(f"{name:20}{runs * seconds:9.3f} s in {runs:,} runs")
    for what in sorted(best.unknown):
        print(f"not estimated: {what}")
    print(f"a step: {best.seconds:.3f} s, {worst.seconds:.3f} if SparseCores keep up with half of the links' rate")
    if options.flops:
        print(f"MFU: {options.flops / best.seconds / topology.chip.peak:.3f}")


if __name__ == "__main__":
    main()
