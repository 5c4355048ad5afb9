"""A training step compiled for chips that aren't here, and what can be read from the compiled program.

Memory is what the compiler has laid out, and collectives are those in its program: facts. (How long it would take:
step_report.py.) Needs libtpu, or NVIDIA's packages for GPUs, and the environment that compile.py sets.
"""

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

from opencoder_jax.compile.chips import GIB, Cluster, Topology
from opencoder_jax.compile.communication import due, unexplained
from opencoder_jax.compile.kernels import executed_flops, kernel_calls, kernels_of
from opencoder_jax.compile.program.collectives import Collective, collectives_of
from opencoder_jax.compile.program.hlo import CompiledProgram
from opencoder_jax.data.batches import Batch
from opencoder_jax.distillation.taught import TaughtBatch
from opencoder_jax.distillation.teach import TeachConfig
from opencoder_jax.files import write_whole
from opencoder_jax.model.flops import attention_flops_per_token, flops_per_token
from opencoder_jax.parallel import mesh as meshes
from opencoder_jax.progress import waiting
from opencoder_jax.recipe import UserError, build
from opencoder_jax.training.run import Recipe
from opencoder_jax.training.step import TrainState, abstract_state, compiled_train_step


@dataclass(frozen=True)
class Lowered:
    """A step as JAX hands it to the compiler. Steps with the same `text` for the same chips are the same program."""

    recipe: Recipe
    chips: Topology | Cluster
    mesh: Mesh
    rows: int  # of a batch
    length: int
    state: TrainState  # abstract
    traced: jax.stages.Traced
    lowered: jax.stages.Lowered
    first_step: int | None = None  # that it was asked for

    @property
    def text(self) -> str:
        return self.lowered.as_text()

    @property
    def microbatches(self) -> int:
        return self.recipe.train.microbatches(self.rows, meshes.data_parallel(self.mesh))

    def compile(self, keep: Path | None = None) -> "Compiled":
        """Compiles it, and writes the program's text to the file `keep`.

        Raises:
            UserError: it doesn't fit the chips' memory; the message says by how much and what to change.
        """
        began = time.perf_counter()
        try:
            compiled, program = compile_for(self.lowered, self.chips, self.mesh, "train_step", keep)
        except jax.errors.JaxRuntimeError as error:
            raise self._too_large(*needed_memory(error)) from None
        seconds = time.perf_counter() - began
        memory = self._memory(compiled.memory_analysis())
        if (used := sum(memory.values())) > self.chips.chip.memory:  # a GPU's compiler doesn't refuse
            raise self._too_large(used / GIB, f"{self.chips.chip.memory / GIB:.1f}")
        return Compiled(self, memory, program, collectives_of(program, self.mesh.shape), seconds)

    def _memory(self, analysis: Any) -> dict[str, float]:
        held = {"parameters": held_bytes(self.state.parameters), "optimizer": held_bytes(self.state.optimizer)}
        return held | {
            "batch": max(0.0, analysis.argument_size_in_bytes - sum(held.values())),
            "activations and gradients": analysis.temp_size_in_bytes,
            "results not in place": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
            "program": analysis.generated_code_size_in_bytes,
        }

    def _too_large(self, used: float, capacity: str) -> UserError:
        """By how many GiB the step doesn't fit, and what to do about it."""
        train, held = self.recipe.train, (held_bytes(self.state.parameters) + held_bytes(self.state.optimizer)) / GIB
        changes = [f"lower TrainConfig.microbatch, now {train.microbatch}"] if train.microbatch != 1 else []
        changes += [f'set TrainConfig.remat to "full", now "{train.remat}"'] if train.remat != "full" else []
        changes += [f"lower TrainConfig.loss_chunk, now {train.loss_chunk}", "take more chips, or MeshConfig.tensor"]
        return UserError(
            f"the recipe doesn't fit {self.chips}: a chip has {capacity} GiB and would need {used:.2f}"
            f" (parameters and optimizer: {held:.2f}); {', or '.join(changes)}"
        )


@dataclass(frozen=True)
class Compiled:
    """A step as it was compiled. Bytes and FLOPs are of one chip."""

    step: Lowered
    memory: dict[str, float]  # bytes by kind
    program: CompiledProgram
    collectives: list[Collective]
    seconds: float  # that the compiler took

    @property
    def jaxpr(self) -> Any:
        """What was compiled, before it was divided among the chips."""
        return self.step.traced.jaxpr.jaxpr

    @property
    def unexplained(self) -> list[str]:
        """Of the collectives, what the recipe doesn't ask for (communication.py)."""
        step = self.step
        asked = due(step.recipe, step.mesh.shape, step.state.parameters, step.rows, step.length)
        return unexplained(self.collectives, asked, step.recipe.model.width, step.state.parameters)

    @property
    def kernels(self) -> dict[str, int]:
        """Runs of each kernel in a step."""
        return kernels_of(self.program)

    @property
    def model_flops(self) -> float:
        step = self.step
        return step.rows * step.length * flops_per_token(step.recipe.model, step.length) / step.chips.size

    @property
    def executed_flops(self) -> float:
        """What is multiplied and added; attention as in `model_flops` where its kernels don't say what they cost."""
        step, calls = self.step, kernel_calls(self.jaxpr).values()
        flops = executed_flops(self.jaxpr)
        if calls and not any(call.flops for call in calls):
            flops += step.rows * step.length * attention_flops_per_token(step.recipe.model, step.length)
        return flops / step.chips.size


def compile_for(
    lowered: jax.stages.Lowered, chips: Topology | Cluster, mesh: Mesh, name: str, keep: Path | None = None
) -> tuple[jax.stages.Compiled, CompiledProgram]:
    """Compiles a program, and reads it.

    Args:
        name: of the function that was lowered.
        keep: a file for the program's text.

    Raises:
        jax.errors.JaxRuntimeError: as the compiler does; `needed_memory` says what it means.
    """
    words = f"XLA compiles for {chips}, {axes_of(mesh)}"
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as folder, waiting(words):
        # A TPU's program is printed by libtpu itself: jaxlib can't print all that is in one for v6e.
        for_tpu = isinstance(chips, Topology)
        options: dict[str, str | bool] = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True} if for_tpu else {}
        compiled = lowered.compile(compiler_options=options)
        dumped = Path(folder).glob(f"*{name}*.after_codegen.txt")
        text = next(dumped).read_text() if for_tpu else compiled.as_text() or ""
        if keep:
            write_whole(keep, text)
        return compiled, CompiledProgram(text)


def needed_memory(error: Exception) -> tuple[float, str]:
    """Of a compiler's refusal the GiB that it would need and those that a chip has. UserError for another refusal."""
    message = str(error)
    found = re.search(
        r"sed ([\d.]+)([GM]) of ([\d.]+)G hbm|\(([\d.]+)([GM])\) exceeds available HBM \(([\d.]+)G", message
    )
    if not found:
        raise UserError(f"the compiler failed: {' '.join(message.split())[:400]}") from None
    amount, unit, capacity = (part for part in found.groups() if part)
    return float(amount) / (1024 if unit == "M" else 1), capacity


def lower_for(recipe: Recipe, chips: Topology | Cluster, step: int | None = None) -> Lowered:
    """Traces the update of `step` (by default a last one) for chips that needn't be there.

    Of a teacher, where the recipe names one, as many tokens are taken to be kept as `TeachConfig.k` says.

    Raises:
        UserError: the recipe can't be divided over the chips.
    """
    mesh = mesh_of(recipe.mesh, chips)
    _, length, rows = recipe.data.phases[-1]
    for first, other_length, other_rows in recipe.data.phases:
        if step is not None and first <= step:
            length, rows = other_length, other_rows
    try:
        recipe.train.microbatches(rows, meshes.data_parallel(mesh))
        state = abstract_state(recipe, mesh)
    except ValueError as error:
        raise UserError(str(error)) from None
    update = compiled_train_step(recipe, mesh)
    rate = jax.ShapeDtypeStruct((), np.float32, sharding=meshes.replicated(mesh))
    with jax.set_mesh(mesh):
        batch = _batch(rows, length, mesh, build(TeachConfig).k if recipe.data.teacher else 0)
        traced = update.trace(state, batch, rate)  # type: ignore[attr-defined]
        return Lowered(recipe, chips, mesh, rows, length, state, traced, traced.lower(), step)


def mesh_of(config: meshes.MeshConfig, chips: Topology | Cluster) -> Mesh:
    """The mesh of chips that needn't be there. Raises UserError where they can't be divided so."""
    try:
        devices = tpus(chips) if isinstance(chips, Topology) else _gpus(chips)
        return meshes.make_mesh(config, devices)
    except ValueError as error:
        raise UserError(str(error)) from None


def tpus(topology: Topology) -> Sequence[jax.Device]:
    """The chips of a topology, which needn't be there. Raises UserError where libtpu knows none such, or is missing."""
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


def _batch(rows: int, length: int, mesh: Mesh, k: int) -> Batch | TaughtBatch:
    """A batch's shapes, with so many tokens of a teacher's distributions; 0: there is no teacher."""
    sharding = meshes.batch_sharding(mesh)

    def of(dtype: type[np.generic], *more: int) -> Any:
        return jax.ShapeDtypeStruct((rows, length, *more), dtype, sharding=sharding)

    text = Batch(of(np.int32), of(np.int32), of(np.int32), of(np.float32))
    return TaughtBatch(*text, of(np.int32, k), of(np.float32, k)) if k else text


def positions_of(devices: np.ndarray) -> list[tuple[int, ...]]:
    """Where each device lies, as `estimate` wants it: slice, then coordinates."""
    return [(getattr(device, "slice_index", 0), *device.coords) for device in devices.flat]


def axes_of(mesh: Mesh) -> str:
    """Its axes and their sizes, in words."""
    return " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1) or "one chip"


def held_bytes(tree: Any) -> float:
    """The bytes of a tree that one chip holds."""
    return float(
        sum(
            np.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
            for leaf in jax.tree.leaves(tree)
        )
    )
