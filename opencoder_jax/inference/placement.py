"""Where an engine's weights and cache lie: on one device, or divided over a mesh as training divides them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import weight_axes
from opencoder_jax.model.decoding import MATRICES, Cache, Weights, in_eight_bits, weights_of
from opencoder_jax.parallel.mesh import weight_sharding
from opencoder_jax.recipe import UserError


def dtype_of(model: ModelConfig, config: EngineConfig) -> Any:
    """What the weights, but those in 8 bits, and the cache are held in."""
    return jnp.dtype(model.dtype if config.weights in ("model", "int8") else config.weights)


def place_weights(
    parameters: Mapping[str, Any], model: ModelConfig, config: EngineConfig, mesh: Mesh | None = None
) -> Weights:
    """A decoder's weights as the engine wants them. Raises UserError if the mesh can't divide them."""
    dtype, axes = dtype_of(model, config), {"head": ("width", "vocabulary"), **weight_axes(model)}

    def place(weight: Any, name: str) -> jax.Array:
        weight = jnp.asarray(weight, jnp.float32 if name.endswith("norm") else dtype)
        if mesh is None:
            return weight
        of_layer = axes["layers"].get(name)
        try:
            return jax.device_put(weight, weight_sharding(mesh, of_layer[1:] if of_layer else axes[name], weight.shape))
        except ValueError as error:
            raise UserError(str(error)) from None

    weights = weights_of(parameters, model, place)
    if config.weights != "int8":
        return weights
    rounded = jax.jit(lambda matrix: in_eight_bits(matrix.astype(jnp.float32)))
    layers = tuple(
        layer._replace(**{name: rounded(getattr(layer, name)) for name in MATRICES}) for layer in weights.layers
    )
    return weights._replace(layers=layers, head=rounded(weights.head))


def cache_sharding(mesh: Mesh | AbstractMesh, cache: Cache) -> NamedSharding:
    """Rows are divided as a batch's rows are, heads of keys as those of the weights, where they can be."""
    rows = mesh.shape["replica"] * mesh.shape["fsdp"]
    return NamedSharding(
        mesh,
        PartitionSpec(
            None if cache.rows % rows else ("replica", "fsdp"),
            None if cache.keys[0].shape[1] % mesh.shape["tensor"] else "tensor",
        ),
    )


def place_cache(cache: Cache, mesh: Mesh | None) -> Cache:
    """Divides a cache over a mesh."""
    return cache if mesh is None else jax.device_put(cache, cache_sharding(mesh, cache))
