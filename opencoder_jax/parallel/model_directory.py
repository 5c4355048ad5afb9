"""A model directory: all that is needed to go on with a model, whoever made it.

    DIR/model.json          the fields of its ModelConfig
    DIR/tokenizer.model     the tokenizer that it was trained with
    DIR/checkpoints/<step>  its weights, as checkpoints.py writes them

A training run's directory is one, with more in it (training/run.py).
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from opencoder_jax.files import need_directory, read_json, write_json
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract, weight_axes
from opencoder_jax.parallel.checkpoints import checkpoint_steps, checksums, restore
from opencoder_jax.parallel.memory import free_memory
from opencoder_jax.parallel.mesh import weight_sharding
from opencoder_jax.recipe import UserError

CONFIG = "model.json"
CHECKPOINTS = "checkpoints"


class LoadedModel(NamedTuple):
    """A decoder apart from its weights, as the functions that are compiled want it."""

    config: ModelConfig
    graphdef: nnx.GraphDef[Any]
    parameters: Any  # float32, a tree in the shape of the decoder's state
    step: int
    fingerprint: str = ""  # SHA-256 that stands for the configuration and all weights


def write_config(directory: Path, config: ModelConfig) -> None:
    """Says what model a directory holds."""
    write_json(directory / CONFIG, dataclasses.asdict(config))


def read_config(directory: Path) -> ModelConfig:
    """What model a directory holds. Raises UserError if it isn't a model directory."""
    need_directory(directory, "a model, such as the --output of a training run")
    if (fields := read_json(directory / CONFIG)) is None:
        raise UserError(f"{directory}: no {CONFIG}, so no model; give the --output directory of a training run")
    try:
        if fields:
            # JSON has no tuples.
            sizes: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
            return ModelConfig(**sizes)
    except (ValueError, TypeError):
        pass
    raise UserError(f"{directory / CONFIG}: doesn't describe a model; the model has to be made again")


def choose_step(directory: Path, step: int | None = None) -> int:
    """The checkpoint of this step, or the newest. Raises UserError if there is none, and says which there are."""
    steps = checkpoint_steps(directory / CHECKPOINTS)
    if not steps:
        raise UserError(f"{directory}: has no checkpoint yet; train it first")
    if step is not None and step not in steps:
        there = ", ".join(map(str, steps))
        raise UserError(f"{directory}: no checkpoint of step {step}; there are {there}")
    return steps[-1] if step is None else step


def load(directory: Path, step: int | None = None, mesh: Mesh | None = None) -> LoadedModel:
    """Restores a model's weights on the default device, or divided over a mesh.

    Args:
        directory: a model directory.
        step: which checkpoint; the newest by default.
        mesh: divides the weights as training does; each device reads its own part.

    Raises:
        UserError: it isn't a model directory, has no such checkpoint, the checkpoint is damaged, or it is larger than
            the memory that is free.
    """
    config = read_config(directory)
    step = choose_step(directory, step)
    graphdef, shapes = abstract(config)
    wanted = jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape.shape, shape.dtype), nnx.to_pure_dict(shapes))
    needed = sum(shape.size * shape.dtype.itemsize for shape in jax.tree.leaves(wanted)) / (mesh.size if mesh else 1)
    if mesh:
        wanted = jax.tree.map(
            lambda shape, axes: shape.update(sharding=weight_sharding(mesh, axes, shape.shape)),
            wanted,
            weight_axes(config),
        )
    if needed > (free := free_memory()):
        raise UserError(
            f"{directory}: the model's weights take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of"
            f" {jax.default_backend().upper()} memory are free; stop what else holds memory, or take a larger machine"
        )
    found = restore(directory / CHECKPOINTS, step, {"parameters": wanted})
    nnx.replace_by_pure_dict(shapes, found["parameters"])
    described = json.dumps([dataclasses.asdict(config), checksums(found)], sort_keys=True)
    return LoadedModel(config, graphdef, shapes, step, hashlib.sha256(described.encode()).hexdigest())
