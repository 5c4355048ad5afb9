"""A training step compiled for chips that aren't here, and what can be read from the compiled program.

Memory is what the compiler has laid out, and collectives are those in its program: facts. The time is an estimate
(estimate.py says what of). Needs libtpu and the environment that compile.py sets.
"""

import dataclasses
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from opencoder_jax.data.batches import Batch
from opencoder_jax.recipe import UserError
from opencoder_jax.training import mesh as meshes
from opencoder_jax.training.chips import GIB, Topology
from opencoder_jax.training.estimate import Estimate, estimate
from opencoder_jax.training.flops import FORMULA, executed_flops, flops_per_token
from opencoder_jax.training.hlo import Program
from opencoder_jax.training.kernel_cycles import kernel_cycles
from opencoder_jax.training.run import Recipe
from opencoder_jax.training.step import TrainState, abstract_state, compiled_train_step


@dataclass(frozen=True)
class Report:
    """What one compiled step takes. Bytes, FLOPs and seconds are of one chip."""

    recipe: Recipe
    topology: Topology
    mesh: dict[str, int]
    rows: int
    length: int
    passes: int
    memory: dict[str, float]  # bytes by kind
    model_flops: float
    executed_flops: float
    estimate: Estimate
    least: frozenset[str]  # kernels whose time is a lower bound
    compile_seconds: float

    @property
    def mfu(self) -> float:
        """Estimated, by the formula of flops.py."""
        return self.model_flops / self.estimate.seconds / self.topology.chip.peak

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "topology": str(self.topology),
            "mesh": self.mesh,
            "rows": self.rows,
            "length": self.length,
            "passes": self.passes,
            "memory_bytes": self.memory,
            "model_flops": self.model_flops,
            "executed_flops": self.executed_flops,
            "estimated_seconds": self.estimate.parts,
            "collectives": {kind: dataclasses.asdict(of) for kind, of in self.estimate.traffic.items()},
            "kernels": {
                name: {"runs": n, "seconds": s, "by_schedule": name not in self.least}
                for name, (n, s) in self.estimate.kernels.items()
            },
            "not_estimated": sorted(self.estimate.unknown),
            "estimated_mfu": self.mfu,
            "compile_seconds": self.compile_seconds,
        }

    def table(self) -> str:
        """For people."""
        train, chip, total = self.recipe.train, self.topology.chip, self.estimate.seconds
        at_most = "at most " if self.estimate.unknown or self.least else ""
        by = "by its schedule, compiled alone"
        axes = ", ".join(f"{axis} {size}" for axis, size in self.mesh.items() if size > 1) or "1 chip"
        lines = [
            f"{self.topology}, {self.topology.size} chips: {axes}; {self.rows} rows of {self.length} in {self.passes}"
            f" passes, remat {train.remat}; compiled in {self.compile_seconds:.0f} s",
            "",
            f"{'memory of a chip':32}{'GiB':>9}",
            *(f"  {kind:30}{size / GIB:9.2f}" for kind, size in self.memory.items()),
            f"  {'in all, it fits':30}{sum(self.memory.values()) / GIB:9.2f}  of {chip.memory / GIB:.0f}",
            "",
            f"{'time of a step, estimated':32}{'s':>9}{'share':>8}",
            *(f"  {part:30}{s:9.3f}{s / total:8.1%}" for part, s in self.estimate.parts.items()),
            f"  {'in all':30}{total:9.3f}",
            "  copies and collectives: only what the chip waits for",
            "",
            f"{'collectives of a step':32}{'count':>9}{'GiB':>9}{'s':>9}{'waited':>9}",
            *(
                f"  {kind:30}{of.count:9,}{of.bytes / GIB:9.2f}{of.seconds:9.3f}{of.waited:9.3f}"
                for kind, of in sorted(self.estimate.traffic.items())
            ),
            "",
            f"{'kernels':32}{'runs':>9}{'ms each':>9}",
            *(
                f"  {name[:30]:30}{n:9,}{1e3 * s:9.3f}  {'at least: FLOPs at peak' if name in self.least else by}"
                for name, (n, s) in self.estimate.kernels.items()
            ),
            *(["  none: XLA compiles all of it"] if not self.estimate.kernels else []),
            *(f"  not estimated: {what}" for what in sorted(self.estimate.unknown)),
            "",
            f"FLOPs of a chip: {self.model_flops:.4g} of the model, {self.executed_flops:.4g} carried out",
            f"tokens/s of a chip: {self.rows * self.length / self.topology.size / total:,.0f}",
            f"MFU, estimated: {at_most}{self.mfu:.3f} ({FORMULA}; peak {chip.peak / 1e12:.0f} TFLOP/s)",
        ]
        return "\n".join(lines)


def compile_for(recipe: Recipe, topology: Topology, step: int | None = None) -> Report:
    """Compiles the update of `step` (by default a last one) for chips that needn't be there.

    Raises:
        UserError: the recipe can't be divided over the chips, or doesn't fit their memory; the message says by how much
            and what to change.
    """
    mesh = _mesh(recipe, topology)
    _, length, rows = recipe.data.phases[-1]
    for first, other_length, other_rows in recipe.data.phases:
        if step is not None and first <= step:
            length, rows = other_length, other_rows
    try:
        passes = recipe.train.passes(rows, meshes.data_parallel(mesh))
        state = abstract_state(recipe, mesh)
    except ValueError as error:
        raise UserError(str(error)) from None
    update = compiled_train_step(recipe, mesh)
    began = time.perf_counter()
    with jax.set_mesh(mesh):
        traced = update.trace(state, _batch(rows, length, mesh), _replicated_scalar(mesh))  # type: ignore[attr-defined]
        with tempfile.TemporaryDirectory() as folder:
            try:
                compiled = traced.lower().compile(
                    compiler_options={"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
                )
            except jax.errors.JaxRuntimeError as error:
                raise _too_large(str(error), recipe, topology, state) from None
            # Printed by libtpu itself: jaxlib can't print all that is in a program for v6e.
            text = next(Path(folder).glob("*train_step*.after_codegen.txt")).read_text()
    seconds = time.perf_counter() - began
    kernels = kernel_cycles(traced.jaxpr.jaxpr, topology)
    memory = compiled.memory_analysis()
    held = {"parameters": _share(state.parameters), "optimizer": _share(state.optimizer)}
    places = [(getattr(device, "slice_index", 0), *device.coords) for device in mesh.devices.flat]
    return Report(
        recipe,
        topology,
        dict(mesh.shape),
        rows,
        length,
        passes,
        held
        | {
            "batch": max(0.0, memory.argument_size_in_bytes - sum(held.values())),
            "activations and gradients": memory.temp_size_in_bytes,
            "results not in place": memory.output_size_in_bytes - memory.alias_size_in_bytes,
            "program": memory.generated_code_size_in_bytes,
        },
        rows * length * flops_per_token(recipe.model, length) / topology.size,
        executed_flops(traced.jaxpr.jaxpr) / topology.size,
        estimate(Program(text), topology, places, kernels.cycles),
        kernels.least,
        seconds,
    )


def _mesh(recipe: Recipe, topology: Topology) -> Mesh:
    options: dict[str, Any] = {"wrap": (*topology.rings, False)[:3]}
    if topology.name == "v4":
        options["chip_config_name"] = "megacore"
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    if len(topology.bounds) == 2 and topology.size == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    bounds = "x".join(map(str, topology.bounds))
    try:
        devices = topologies.get_topology_desc(f"{topology.name}:{bounds}", platform="tpu", **options).devices
        return meshes.make_mesh(recipe.mesh, devices)
    except ValueError as error:
        raise UserError(str(error)) from None
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={topology}: libtpu knows no such slice ({str(error).splitlines()[0]})") from None
    except ImportError:
        raise UserError("compiling for TPUs needs libtpu: make .venv, on Linux and x86-64") from None


def _batch(rows: int, length: int, mesh: Mesh) -> Batch:
    sharding = meshes.batch_sharding(mesh)
    ids = jax.ShapeDtypeStruct((rows, length), np.int32, sharding=sharding)
    mask = jax.ShapeDtypeStruct((rows, length), np.float32, sharding=sharding)
    return Batch(ids, ids, ids, mask)  # type: ignore[arg-type]


def _replicated_scalar(mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), np.float32, sharding=meshes.replicated(mesh))


def _share(tree: Any) -> float:
    """The bytes of a tree that one chip holds."""
    return float(
        sum(
            np.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
            for leaf in jax.tree.leaves(tree)
        )
    )


def _too_large(message: str, recipe: Recipe, topology: Topology, state: TrainState) -> UserError:
    """What to do about the compiler's refusal; any other failure of the compiler is passed on as it is."""
    found = re.search(
        r"sed ([\d.]+)([GM]) of ([\d.]+)G hbm|\(([\d.]+)([GM])\) exceeds available HBM \(([\d.]+)G", message
    )
    if not found:
        return UserError(f"the compiler failed: {' '.join(message.split())[:400]}")
    amount, unit, capacity = (part for part in found.groups() if part)
    used = float(amount) / (1024 if unit == "M" else 1)
    train, held = recipe.train, (_share(state.parameters) + _share(state.optimizer)) / GIB
    changes = [f"lower TrainConfig.micro_batch, now {train.micro_batch}"] if train.micro_batch != 1 else []
    changes += [f'set TrainConfig.remat to "full", now "{train.remat}"'] if train.remat != "full" else []
    changes += [f"lower TrainConfig.loss_chunk, now {train.loss_chunk}", "take more chips, or MeshConfig.tensor"]
    return UserError(
        f"the recipe doesn't fit {topology}: a chip has {capacity} GiB and would need {used:.2f}"
        f" (parameters and optimizer: {held:.2f}); {', or '.join(changes)}"
    )
