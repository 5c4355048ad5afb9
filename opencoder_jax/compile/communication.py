"""What a recipe's step has to move between chips, worked out from the recipe, and what a program moves besides.

    along fsdp     the weights, gathered in the dtype of the products, once forward and once backward; the gradients,
                   scattered; the rows of the embedding that tokens look up, and their gradients on the way back
    along replica  the gradients of a chip's own part of the weights, summed up (and along context, where there is one)
    along context  keys and values, gathered; their gradients, scattered
    along tensor   what attention and feed-forward make, and its gradients, summed up; the loss's sums over the
                   vocabulary

Each once a microbatch. Scalars and norms cross wherever they like. So a compiler that gathers in float32, sums
gradients up whole, moves activations where weights were meant, or gathers once a chunk, is found out and named.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from opencoder_jax.compile.estimate import part_of
from opencoder_jax.compile.program.collectives import Collective
from opencoder_jax.parallel.mesh import AXES
from opencoder_jax.training.run import Recipe

TOLERANCE = 1.01  # of what is due
# What XLA may add to a chip's part of a gradient before it scatters that along a ring (280 rows become 288, and so may
# 256), and then hands on, since it lies with the wrong chip.
PADDING = 1 / 8
# Where these are recomputed, attention's projections are gathered for that and again for their gradients, since its
# kernel runs between the two; and the product that ends attention, which the feed-forward reads, is summed up again.
RECOMPUTES_PROJECTIONS = ("attention", "full")
PROJECTIONS = ("query", "key", "value", "output")


@dataclass(frozen=True)
class Due:
    """Bytes that a chip has to take in along some axes of the mesh in a step, by one kind of collective."""

    kind: str
    axes: frozenset[str]
    bytes: float
    what: str


def due(recipe: Recipe, mesh: Mapping[str, int], parameters: Any, rows: int, length: int) -> list[Due]:
    """All that a step has to move, but scalars and norms.

    Args:
        mesh: the sizes of its axes.
        parameters: the weights' shapes and shardings, as `abstract_state` has them.
        rows: of the whole batch, of `length` tokens each.
    """
    model = recipe.model
    replica, fsdp, context, tensor = (mesh[axis] for axis in AXES)
    count = recipe.train.microbatches(rows, replica * fsdp)
    tokens = rows * length / count / (replica * fsdp * context)  # of a chip, in a microbatch
    item = jnp.dtype(model.dtype).itemsize

    # The matrices of a chip: what it holds, in numbers. The rest of each is with the others of its fsdp group.
    layers = sum(_held(weight) for weight in jax.tree.leaves(parameters["layers"]) if len(weight.shape) > 2)
    embedding = _held(parameters["embedding"])
    head = embedding if model.tied_head else _held(parameters["head"])
    by_hand = tensor == 1 and replica * context > 1  # what step.py places itself
    of_head = item if by_hand else 4
    scattered = (layers * item + head * of_head) * (fsdp - 1)
    stream = tokens * model.width * item
    keys = tokens * (context - 1) * model.kv_heads / tensor * model.head_size * item
    again = recipe.train.remat in RECOMPUTES_PROJECTIONS
    projections = again * sum(_held(parameters["layers"][name]) for name in PROJECTIONS)
    sums = 4 + again

    on_fsdp, on_context, on_tensor = (frozenset({axis}) for axis in AXES[1:])
    moved = [
        Due("all-gather", on_fsdp, 2 * layers * (fsdp - 1) * item, "weights of the layers, twice a microbatch"),
        Due("all-gather", on_fsdp, projections * (fsdp - 1) * item, "attention's, again, at most"),
        Due("all-gather", on_fsdp, head * (fsdp - 1) * item, "the head, once a microbatch"),
        Due("all-gather", on_fsdp, tokens * (fsdp - 1) * 4, "ids of tokens to look up"),
        Due("all-to-all", on_fsdp, stream * (fsdp - 1) / fsdp, "rows of the embedding"),
        Due("all-to-all", on_fsdp, stream * (fsdp - 1) / fsdp, "gradients of the embedding's rows"),
        Due("reduce-scatter", on_fsdp, scattered, "gradients"),
        Due("reduce-scatter", on_fsdp, scattered * PADDING, "their padding, at most"),
        Due("collective-permute", on_fsdp, scattered * PADDING, "their padding, at most"),
        Due("all-gather", on_context, 2 * 2 * model.layers * keys, "keys and values, twice a microbatch"),
        Due("reduce-scatter", on_context, 2 * model.layers * keys, "gradients of keys and values"),
    ]
    # Those of the vocabulary's tables are summed up once a step, where step.py sees to it.
    tables = (embedding + head) * 4 / (count if by_hand else 1)
    copies, gradients = replica * context, layers * item + tables
    along = frozenset(axis for axis in ("replica", "context") if mesh[axis] > 1)
    streams = stream * (sums * model.layers + 2) + 3 * 4 * tokens
    moved += [
        Due("all-reduce", along, 2 * gradients * (copies - 1) / copies, "gradients of a chip's part of the weights"),
        Due("all-reduce", on_tensor, 2 * streams * (tensor - 1) / tensor, "activations, sums of the loss"),
    ]
    return [Due(one.kind, one.axes, one.bytes * count, one.what) for one in moved if one.bytes]


def unexplained(
    collectives: Sequence[Collective], dues: Sequence[Due], width: int, parameters: Any = None
) -> list[str]:
    """What a program moves that isn't due, or more of it than is due: a line each, with its size and its origin.

    Args:
        parameters: as in `due`; they tell whose an array is that the compiler made, by its shape.
        width: of the model: what is no larger than a layer's norms and their gradients, in float32, is not asked about.
    """
    norms = 2 * 2 * 4 * width * 2
    found: dict[tuple[str, frozenset[str]], list[Collective]] = defaultdict(list)
    for one in collectives:
        if one.bytes / one.runs > norms:
            found[one.kind, one.axes].append(one)
    lines = []
    for (kind, axes), several in sorted(found.items(), key=lambda item: -sum(one.bytes for one in item[1])):
        asked = [one for one in dues if one.kind == kind and one.axes == axes]
        allowed, moved = sum(one.bytes for one in asked), sum(one.bytes for one in several)
        if moved <= allowed * TOLERANCE:
            continue
        why = f"{_gib(allowed)} are due ({', '.join(one.what for one in asked)})" if asked else "none is due"
        largest = sorted(several, key=lambda one: -one.bytes)[: 6 if asked else 3]
        lines.append(
            f"{kind} along {' and '.join(sorted(axes)) or 'nothing'}: {_gib(moved)}, where {why}: "
            + "; ".join(
                f"{one.runs:,} x {one.shape[:80]} ({_gib(one.bytes)}) from {_origin(one, parameters)}"
                for one in largest
            )
            + ("; …" if len(several) > len(largest) else "")
        )
    return lines


def _held(weight: Any) -> float:
    return float(prod(weight.sharding.shard_shape(weight.shape)))


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _origin(one: Collective, parameters: Any) -> str:
    if not one.source:
        owners = [name for name, shape in _matrices(parameters) if re.search(rf"\[(1,)?{shape}\]", one.shape)]
        return f"an operation without a name, of the shape of {' or '.join(owners) or 'no weight'}"
    pass_ = "gradients" if "transpose(" in one.source else "forward"
    return f"{part_of(one.source)}, {pass_}: " + "/".join(one.source.split("/")[-3:])


def _matrices(parameters: Any) -> Iterator[tuple[str, str]]:
    """Each matrix of a model by name, and its shapes as a program prints them: of a layer, whole or a chip's part."""
    for path, weight in jax.tree_util.tree_leaves_with_path(parameters):
        layers = int("layers" in str(path[0]))
        for shape in {weight.shape[layers:], weight.sharding.shard_shape(weight.shape)[layers:]}:
            if len(shape) > 1:
                yield jax.tree_util.keystr(path, simple=True, separator="."), ",".join(map(str, shape))
