"""The mesh: which device holds which part of which array.

The model names the axes of its weights ("width", "heads", ...) and knows nothing else; the batch has rows and
positions. The two tables below say which axis of the mesh divides each of them, and that is the whole policy:

    replica  copies of the model; rows of the batch are divided
    fsdp     rows of the batch are divided, and so are weights and optimizer state (gathered layer by layer, when used)
    context  positions of a row are divided
    tensor   heads, feed-forward units and vocabulary are divided

XLA's partitioner puts in the collectives. The same recipe runs on one device, where every table entry means nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import jax
import numpy as np
import optax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from opencoder_jax.checks import Requirement, check
from opencoder_jax.recipe import configurable

AXES = ("replica", "fsdp", "context", "tensor")

# Logical axis of a weight -> axis of the mesh. Two axes of one weight must not meet on the same mesh axis.
WEIGHT_AXES: Mapping[str, str | None] = {
    "layers": None,
    "vocabulary": "tensor",
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_size": None,
    "ffn": "tensor",
}
BATCH_AXES = PartitionSpec(("replica", "fsdp"), "context")  # [rows, length]


@configurable
@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh's axes, in devices; at most one of them may be -1: all devices that the others leave.

    Attributes:
        replica: copies of the model, each of which takes its share of the rows.
        fsdp: parts of the rows, and of the weights and the optimizer's state.
        context: parts of a row's positions.
        tensor: parts of the heads, the feed-forward and the vocabulary.
        topology: the chips that the sizes are meant for, as `compile --topology` names them.
    """

    replica: int = 1
    fsdp: int = -1
    context: int = 1
    tensor: int = 1
    topology: str | None = None

    def __post_init__(self) -> None:
        size = Requirement(lambda size: size >= 1 or size == -1, "1 device or more, or -1 for the rest")
        check(self, **dict.fromkeys(AXES, size))
        if self._given.count(-1) > 1:
            raise ValueError(f"{self}: only one axis can be -1 (the rest of the devices)")

    @property
    def _given(self) -> tuple[int, int, int, int]:
        return self.replica, self.fsdp, self.context, self.tensor

    def sizes(self, devices: int) -> tuple[int, int, int, int]:
        """The four sizes on that many devices, in the order of AXES.

        Raises:
            ValueError: the sizes don't multiply to `devices`.
        """
        given = prod(size for size in self._given if size != -1)
        rest = devices // given
        replica, fsdp, context, tensor = (rest if size == -1 else size for size in self._given)
        if replica * fsdp * context * tensor != devices:
            raise ValueError(f"{self} doesn't fit {devices} devices; change a size, or set one to -1 (the rest)")
        return replica, fsdp, context, tensor


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices (or those given), for `jax.set_mesh`; XLA's partitioner chooses inner shardings.

    Slices of TPUs are joined by a data-centre network alone, so `replica`, whose gradients cross it once a step, is the
    axis that runs over them.

    Raises:
        ValueError: the sizes don't fit the devices, or `replica` isn't a multiple of the slices.
    """
    devices = jax.devices() if devices is None else devices
    replica, *inner = sizes = config.sizes(len(devices))
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if replica % slices:
        raise ValueError(f"replica={replica}: the devices are {slices} slices, so it must be a multiple of {slices}")
    if slices > 1:
        within, across = (replica // slices, *inner), (slices, 1, 1, 1)
        grid = mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)
    elif len(devices) > 1:
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    else:
        grid = np.array(devices).reshape(sizes)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def data_parallel(mesh: Mesh | AbstractMesh) -> int:
    """Into how many parts the rows of a batch are divided."""
    return mesh.shape["replica"] * mesh.shape["fsdp"]


def dividing_axes(mesh: AbstractMesh) -> tuple[PartitionSpec, tuple[str, ...]]:
    """Of an array [rows, length] the sharding by the axes that divide something, and these axes."""
    rows = tuple(axis for axis in ("replica", "fsdp") if mesh.shape[axis] > 1)
    length = "context" if mesh.shape["context"] > 1 else None
    return PartitionSpec(rows, length), rows + ((length,) if length else ())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array [rows, length]."""
    return NamedSharding(mesh, BATCH_AXES)


def handed_out(x: Array) -> Array:
    """The embedding's rows of the tokens, [rows, length, width], from who looked them up to whose rows they are.

    A hint to XLA's partitioner that the table is divided along its width, and parts are to be exchanged. Needs
    `jax.set_mesh`.
    """
    looked_up = jax.lax.with_sharding_constraint(x, PartitionSpec("replica", "context", "fsdp"))
    return jax.lax.with_sharding_constraint(looked_up, PartitionSpec(*BATCH_AXES))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def weight_sharding(mesh: Mesh | AbstractMesh, axes: tuple[str, ...], shape: tuple[int, ...]) -> NamedSharding:
    """The sharding of a weight whose logical axes are `axes`.

    Raises:
        ValueError: an axis that the table doesn't know, or a size that its mesh axis doesn't divide.
    """
    for axis, size in zip(axes, shape, strict=True):
        if axis not in WEIGHT_AXES:
            raise ValueError(f"weight axis {axis!r} isn't in WEIGHT_AXES of opencoder_jax/parallel/mesh.py")
        over = WEIGHT_AXES[axis]
        if over is not None and size % mesh.shape[over]:
            raise ValueError(f"{axis} {size} can't be divided by {over}={mesh.shape[over]}; change MeshConfig.{over}")
    return NamedSharding(mesh, PartitionSpec(*(WEIGHT_AXES[axis] for axis in axes)))


def optimizer_shardings(
    transformation: optax.GradientTransformation, optimizer: PyTree, weights: PyTree, mesh: Mesh | AbstractMesh
) -> PyTree:
    """Shardings of an optimizer's state: each moment lies as its weight does, counters lie everywhere.

    Args:
        optimizer: the state, or its abstract shapes.
        weights: the weights' shardings, a tree with the weights' structure.
    """
    return optax.tree_utils.tree_map_params(
        transformation,
        lambda _, sharding: sharding,
        optimizer,
        weights,
        transform_non_params=lambda _: replicated(mesh),
    )
