"""A training step compiled for chips that aren't here, and what can be read from the compiled program.

Memory is what the compiler has laid out, and collectives are those in its program: facts. The time on a TPU is an
estimate (estimate.py says what of). Needs libtpu, or NVIDIA's packages for GPUs, and the environment that compile.py
sets.
"""

import dataclasses
import importlib
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from opencoder_jax.compile.chips import GIB, Chip, Topology
from opencoder_jax.compile.collectives import Collective, collectives_of
from opencoder_jax.compile.communication import due, unexplained
from opencoder_jax.compile.estimate import Estimate, estimate
from opencoder_jax.compile.gpus import Cluster
from opencoder_jax.compile.hlo import Program
from opencoder_jax.compile.kernel_cycles import kernel_cycles
from opencoder_jax.compile.kernels import kernels_of
from opencoder_jax.data.batches import Batch
from opencoder_jax.model.flops import (
    FORMULA,
    attention_flops_per_token,
    executed_flops,
    flops_per_token,
    kernel_calls,
)
from opencoder_jax.parallel import mesh as meshes
from opencoder_jax.recipe import UserError
from opencoder_jax.training.run import Recipe
from opencoder_jax.training.step import TrainState, abstract_state, compiled_train_step


@dataclass(frozen=True)
class Compiled:
    """A step as it was compiled. Bytes and FLOPs are of one chip."""

    recipe: Recipe
    topology: Topology | Cluster
    mesh: Mesh
    rows: int
    length: int
    memory: dict[str, float]  # bytes by kind
    program: Program
    jaxpr: Any  # what was compiled, before it was divided among the chips
    collectives: list[Collective]
    unexplained: list[str]  # of them, what the recipe doesn't ask for (communication.py)
    seconds: float  # that the compiler took

    @property
    def passes(self) -> int:
        return self.recipe.train.passes(self.rows, meshes.data_parallel(self.mesh))

    @property
    def kernels(self) -> dict[str, int]:
        """Runs of each kernel in a step."""
        return kernels_of(self.program)

    @property
    def model_flops(self) -> float:
        return self.rows * self.length * flops_per_token(self.recipe.model, self.length) / self.topology.size

    @property
    def executed_flops(self) -> float:
        """What is multiplied and added; attention as in `model_flops` where its kernels don't say what they cost."""
        flops, kernels = executed_flops(self.jaxpr), kernel_calls(self.jaxpr).values()
        if kernels and not any(of_kernel for of_kernel, _ in kernels):
            flops += self.rows * self.length * attention_flops_per_token(self.recipe.model, self.length)
        return flops / self.topology.size

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "topology": str(self.topology),
            "mesh": dict(self.mesh.shape),
            "rows": self.rows,
            "length": self.length,
            "passes": self.passes,
            "memory_bytes": self.memory,
            "model_flops": self.model_flops,
            "executed_flops": self.executed_flops,
            "unexplained_collectives": self.unexplained,
            "compile_seconds": self.seconds,
        }

    def title(self) -> str:
        """What was compiled, in a line."""
        axes = ", ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items() if size > 1) or "1 chip"
        return (
            f"{self.topology}, {self.topology.size} chips: {axes}; {self.rows} rows of {self.length} in {self.passes}"
            f" passes, remat {self.recipe.train.remat}; compiled in {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class Report:
    """What a compiled step takes, and how long it would. Seconds are of one chip."""

    step: Compiled
    chip: Chip
    estimate: Estimate
    least: frozenset[str]  # kernels whose time is a lower bound

    @property
    def mfu(self) -> float:
        """Estimated, by the formula of flops.py."""
        return self.step.model_flops / self.estimate.seconds / self.chip.peak

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return self.step.figures() | {
            "estimated_seconds": self.estimate.parts,
            "collectives": {kind: dataclasses.asdict(of) for kind, of in self.estimate.traffic.items()},
            "kernels": {
                name: {"runs": n, "seconds": s, "by_schedule": name not in self.least}
                for name, (n, s) in self.estimate.kernels.items()
            },
            "not_estimated": sorted(self.estimate.unknown),
            "estimated_mfu": self.mfu,
        }

    def table(self) -> str:
        """For people."""
        step, chip, total = self.step, self.chip, self.estimate.seconds
        at_most = "at most " if self.estimate.unknown or self.least else ""
        by = "by its schedule, compiled alone"
        lines = [
            step.title(),
            "",
            f"{'memory of a chip':32}{'GiB':>9}",
            *(f"  {kind:30}{size / GIB:9.2f}" for kind, size in step.memory.items()),
            f"  {'in all, it fits':30}{sum(step.memory.values()) / GIB:9.2f}  of {chip.memory / GIB:.0f}",
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
            *(f"  not asked for: {what}" for what in step.unexplained),
            "",
            f"{'kernels':32}{'runs':>9}{'ms each':>9}",
            *(
                f"  {name[:30]:30}{n:9,}{1e3 * s:9.3f}  {'at least: FLOPs at peak' if name in self.least else by}"
                for name, (n, s) in self.estimate.kernels.items()
            ),
            *(["  none: XLA compiles all of it"] if not self.estimate.kernels else []),
            *(f"  not estimated: {what}" for what in sorted(self.estimate.unknown)),
            "",
            f"FLOPs of a chip: {step.model_flops:.4g} of the model, {step.executed_flops:.4g} carried out",
            f"tokens/s of a chip: {step.rows * step.length / step.topology.size / total:,.0f}",
            f"MFU, estimated: {at_most}{self.mfu:.3f} ({FORMULA}; peak {chip.peak / 1e12:.0f} TFLOP/s)",
        ]
        return "\n".join(lines)


def report_on(step: Compiled, topology: Topology) -> Report:
    """Estimates the time of a step compiled for TPUs. Compiles its kernels once more, alone, for their schedules."""
    kernels = kernel_cycles(step.jaxpr, topology)
    places = [(getattr(device, "slice_index", 0), *device.coords) for device in step.mesh.devices.flat]
    return Report(step, topology.chip, estimate(step.program, topology, places, kernels.cycles), kernels.least)


@dataclass(frozen=True)
class Lowered:
    """A step as JAX hands it to the compiler. Steps with the same `text` for the same chips are the same program."""

    recipe: Recipe
    topology: Topology | Cluster
    mesh: Mesh
    rows: int
    length: int
    state: TrainState  # abstract
    traced: jax.stages.Traced
    lowered: jax.stages.Lowered

    @property
    def text(self) -> str:
        return self.lowered.as_text()

    def compile(self) -> Compiled:
        """Raises UserError when it doesn't fit the chips' memory; the message says by how much and what to change."""
        began = time.perf_counter()
        with jax.set_mesh(self.mesh), tempfile.TemporaryDirectory() as folder:
            # A TPU's program is printed by libtpu itself: jaxlib can't print all that is in one for v6e.
            for_tpu = isinstance(self.topology, Topology)
            options: dict[str, str | bool] = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True} if for_tpu else {}
            try:
                compiled = self.lowered.compile(compiler_options=options)
            except jax.errors.JaxRuntimeError as error:
                raise self._refused(str(error)) from None
            dumped = Path(folder).glob("*train_step*.after_codegen.txt")
            program = Program(next(dumped).read_text() if for_tpu else compiled.as_text() or "")
        seconds = time.perf_counter() - began
        memory = self._memory(compiled.memory_analysis())
        if (used := sum(memory.values())) > self.topology.chip.memory:  # a GPU's compiler doesn't refuse
            raise self._too_large(used / GIB, f"{self.topology.chip.memory / GIB:.1f}")
        found = collectives_of(program, self.mesh.shape)
        asked = due(self.recipe, self.mesh.shape, self.state.parameters, self.rows, self.length)
        return Compiled(
            self.recipe,
            self.topology,
            self.mesh,
            self.rows,
            self.length,
            memory,
            program,
            self.traced.jaxpr.jaxpr,
            found,
            unexplained(found, asked, self.recipe.model.width),
            seconds,
        )

    def _memory(self, analysis: Any) -> dict[str, float]:
        held = {"parameters": _share(self.state.parameters), "optimizer": _share(self.state.optimizer)}
        return held | {
            "batch": max(0.0, analysis.argument_size_in_bytes - sum(held.values())),
            "activations and gradients": analysis.temp_size_in_bytes,
            "results not in place": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
            "program": analysis.generated_code_size_in_bytes,
        }

    def _refused(self, message: str) -> UserError:
        """What the compiler's refusal means."""
        found = re.search(
            r"sed ([\d.]+)([GM]) of ([\d.]+)G hbm|\(([\d.]+)([GM])\) exceeds available HBM \(([\d.]+)G", message
        )
        if not found:
            return UserError(f"the compiler failed: {' '.join(message.split())[:400]}")
        amount, unit, capacity = (part for part in found.groups() if part)
        return self._too_large(float(amount) / (1024 if unit == "M" else 1), capacity)

    def _too_large(self, used: float, capacity: str) -> UserError:
        """By how many GiB the step doesn't fit, and what to do about it."""
        train, held = self.recipe.train, (_share(self.state.parameters) + _share(self.state.optimizer)) / GIB
        changes = [f"lower TrainConfig.micro_batch, now {train.micro_batch}"] if train.micro_batch != 1 else []
        changes += [f'set TrainConfig.remat to "full", now "{train.remat}"'] if train.remat != "full" else []
        changes += [f"lower TrainConfig.loss_chunk, now {train.loss_chunk}", "take more chips, or MeshConfig.tensor"]
        return UserError(
            f"the recipe doesn't fit {self.topology}: a chip has {capacity} GiB and would need {used:.2f}"
            f" (parameters and optimizer: {held:.2f}); {', or '.join(changes)}"
        )


def lower_for(recipe: Recipe, topology: Topology | Cluster, step: int | None = None) -> Lowered:
    """Traces the update of `step` (by default a last one) for chips that needn't be there.

    Raises:
        UserError: the recipe can't be divided over the chips.
    """
    mesh = _mesh(recipe, topology)
    _, length, rows = recipe.data.phases[-1]
    for first, other_length, other_rows in recipe.data.phases:
        if step is not None and first <= step:
            length, rows = other_length, other_rows
    try:
        recipe.train.passes(rows, meshes.data_parallel(mesh))
        state = abstract_state(recipe, mesh)
    except ValueError as error:
        raise UserError(str(error)) from None
    update = compiled_train_step(recipe, mesh)
    with jax.set_mesh(mesh):
        traced = update.trace(state, _batch(rows, length, mesh), _replicated_scalar(mesh))  # type: ignore[attr-defined]
        return Lowered(recipe, topology, mesh, rows, length, state, traced, traced.lower())


def _mesh(recipe: Recipe, topology: Topology | Cluster) -> Mesh:
    try:
        devices = _tpus(topology) if isinstance(topology, Topology) else _gpus(topology)
        return meshes.make_mesh(recipe.mesh, devices)
    except ValueError as error:
        raise UserError(str(error)) from None


def _tpus(topology: Topology) -> Sequence[jax.Device]:
    options: dict[str, Any] = {"wrap": (*topology.rings, False)[:3]}
    if topology.name == "v4":
        options["chip_config_name"] = "megacore"
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    if len(topology.bounds) == 2 and topology.size == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    bounds = "x".join(map(str, topology.bounds))
    try:
        return topologies.get_topology_desc(f"{topology.name}:{bounds}", platform="tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={topology}: libtpu knows no such slice ({str(error).splitlines()[0]})") from None
    except ImportError:
        raise UserError("compiling for TPUs needs libtpu: make .venv, on Linux and x86-64") from None


def _gpus(cluster: Cluster) -> Sequence[jax.Device]:
    try:
        for package in ("jax_plugins.xla_cuda13", "nvidia.cu13"):
            importlib.import_module(package)
    except ImportError:
        raise UserError(
            f"--topology={cluster}: compiling for GPUs needs NVIDIA's packages (4 GB): pip install -e '.[cuda]'"
        ) from None
    of_each = f"1x{cluster.hosts}x{cluster.size // cluster.hosts}"
    return topologies.get_topology_desc(
        "", platform="cuda", target_config=cluster.chip.target, topology=of_each
    ).devices


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
