"""What to change where a step moves more than its recipe asks for: other numbers of copies are compiled, and compared.

XLA scatters gradients well within small groups of chips, and along a side of the torus; in others it sums them up
whole, which is where most undue collectives come from. Which group is good depends on chip, slice and width, so the
neighbours are tried rather than guessed: as many copies of the state (MeshConfig.replica) times 2, 4, 1/2, 1/4.
"""

from collections.abc import Iterator

from opencoder_jax.compile.chips import GIB, Cluster, Topology
from opencoder_jax.compile.lower import Compiled, lower_for
from opencoder_jax.compile.step_report import GpuReport, report_on
from opencoder_jax.parallel.mesh import MeshConfig
from opencoder_jax.recipe import UserError
from opencoder_jax.training.run import Recipe

FACTORS = (2, 4, 1 / 2, 1 / 4)


def neighbours(recipe: Recipe, chips: Topology | Cluster) -> list[Recipe]:
    """The same step with more or fewer copies of the state, the nearest first; the rest of the chips divide it."""
    replica, fsdp, context, tensor = recipe.mesh.sizes(chips.size)
    sizes = [round(replica * factor) for factor in FACTORS if replica * factor % 1 == 0]
    meshes = [
        MeshConfig(size, replica * fsdp // size, context, tensor, recipe.mesh.topology)
        for size in sizes
        if replica * fsdp % size == 0
    ]
    return [recipe._replace(mesh=mesh) for mesh in meshes]


def try_neighbours(compiled: Compiled, sparse_cores: float) -> Iterator[str]:
    """A line for each neighbour, as soon as it is compiled: each takes about as long as the step itself took."""
    step = compiled.step
    for recipe in neighbours(step.recipe, step.chips):
        name = f"MeshConfig.replica={recipe.mesh.replica} (fsdp {recipe.mesh.fsdp})"
        try:
            found = lower_for(recipe, step.chips, step.first_step).compile()
        except UserError as error:
            yield f"  {name}: {error}"
            continue
        report = report_on(found, sparse_cores)
        least = "at least " if isinstance(report, GpuReport) else ""
        seconds = report.seconds if isinstance(report, GpuReport) else report.estimate.seconds
        undue = [line.partition(": ")[0] for line in found.unexplained]
        yield (
            f"  {name}: {least}{seconds:.3f} s a step, {sum(found.memory.values()) / GIB:.2f} GiB; "
            + (f"not asked for: {'; '.join(undue)}" if undue else "nothing is moved that isn't asked for")
        )
