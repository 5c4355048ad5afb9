"""A trained model out of a run directory: all that inference needs of it.

`run.json` holds the fields of ModelConfig under "model", `checkpoints/<step>/parameters` the weights, written by Orbax
and nested as the decoder's attributes, `tokenizer.model` the tokenizer that it was trained with.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from flax import nnx

from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract
from opencoder_jax.recipe import UserError


class TrainedModel(NamedTuple):
    """A decoder apart from its weights, as the functions that are compiled want it."""

    config: ModelConfig
    graphdef: nnx.GraphDef[Any]
    parameters: Any  # float32, a tree in the shape of the decoder's state
    step: int


def checkpoint_steps(directory: Path) -> list[int]:
    """The steps of the complete checkpoints in a directory, ascending; none when it isn't there."""
    return sorted(ocp.utils.checkpoint_steps(directory)) if directory.exists() else []


def load(run: Path, step: int | None = None) -> TrainedModel:
    """Restores the weights of a run on the default device.

    Args:
        run: the run's directory.
        step: which checkpoint; the newest by default.

    Raises:
        UserError: there is no run, or no such checkpoint; the message names what is there.
    """
    description = run / "run.json"
    if not description.is_file():
        raise UserError(f"{run}: no run.json, so no trained model; train one, or give the directory of a run")
    try:
        config = ModelConfig(**json.loads(description.read_text())["model"])
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{description}: doesn't describe a model; the run has to be made again") from None
    checkpoints = run / "checkpoints"
    steps = checkpoint_steps(checkpoints)
    if not steps:
        raise UserError(f"{checkpoints}: no checkpoint yet; train the run first")
    if step is not None and step not in steps:
        raise UserError(f"{checkpoints}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
    chosen = steps[-1] if step is None else step
    graphdef, shapes = abstract(config)
    wanted = jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape.shape, shape.dtype), nnx.to_pure_dict(shapes))
    place = (checkpoints / str(chosen)).absolute()
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            items = ocp.args.Composite(parameters=ocp.args.StandardRestore(wanted))
            restored = reader.restore(place, args=items)["parameters"]
    except Exception as error:  # what a damaged file raises depends on the file: many types have been seen
        raise UserError(f"checkpoint {place} can't be read ({' '.join(str(error).split())[:200]})") from error
    # Orbax hands out whatever shapes were saved.
    for (path, shape), found in zip(jax.tree.leaves_with_path(wanted), jax.tree.leaves(restored), strict=True):
        if found.shape != shape.shape:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise UserError(f"checkpoint {place}: {name} is {found.shape}, and {shape.shape} by {description}")
    nnx.replace_by_pure_dict(shapes, restored)
    return TrainedModel(config, graphdef, shapes, chosen)
