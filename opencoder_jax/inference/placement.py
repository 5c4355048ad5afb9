"""Where an engine's weights and cache lie: on one device, or divided over a mesh as training divides them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.kernels.attention.cpu.layers import takes
from opencoder_jax.kernels.attention.cpu.pages import in_large_pages
from opencoder_jax.kernels.attention.rows import cpu_kernels
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract, weight_axes
from opencoder_jax.model.decoding import (
    MATRICES,
    Cache,
    Eight,
    Matrix,
    Weights,
    empty_cache,
    in_eight_bits,
    weights_of,
)
from opencoder_jax.parallel.mesh import weight_sharding
from opencoder_jax.recipe import UserError


def dtype_of(model: ModelConfig, config: EngineConfig) -> Any:
    """What the weights, but those in 8 bits, and the cache are held in."""
    return jnp.dtype(model.dtype if config.weights in ("model", "int8") else config.weights)


def place_weights(
    parameters: Mapping[str, Any], model: ModelConfig, config: EngineConfig, mesh: Mesh | None = None
) -> Weights:
    """A decoder's weights as the engine wants them. Raises UserError if the mesh can't divide them."""
    dtype, axes = dtype_of(model, config), weight_axes(model)

    def place(weight: Any, name: str) -> jax.Array:
        weight = jnp.asarray(weight, jnp.float32 if name.endswith("norm") else dtype)
        return weight if mesh is None else jax.device_put(weight, _sharding(mesh, axes, name, weight.shape))

    def hold(matrix: Any) -> Matrix:
        return _rounded(matrix) if config.weights == "int8" else matrix

    by_kernels = mesh is None and takes(model.head_size, dtype) and cpu_kernels()
    weights = weights_of(parameters, model, place, hold, by_kernels)
    if by_kernels:
        in_large_pages(jax.tree.leaves(weights))
    return weights


def abstract_weights(model: ModelConfig, config: EngineConfig, mesh: Mesh) -> Weights:
    """What `place_weights` would put on a mesh whose devices needn't be there. Raises UserError as it does."""
    dtype, axes = dtype_of(model, config), weight_axes(model)
    specs: dict[str, PartitionSpec] = {}

    def place(weight: Any, name: str) -> Any:
        spec = _sharding(mesh, axes, name, weight.shape).spec
        # A matrix's axes become two, each divided as the first of its own is.
        specs[name] = PartitionSpec(spec[0], spec[MATRICES[name]]) if name in MATRICES else spec
        return weight.astype(jnp.float32 if name.endswith("norm") else dtype)

    def whole(parameters: Mapping[str, Any]) -> Weights:
        return weights_of(parameters, model, place, _rounded if config.weights == "int8" else lambda matrix: matrix)

    shapes = jax.eval_shape(whole, nnx.to_pure_dict(abstract(model)[1]))

    def lying(name: str, weight: Any) -> Any:
        """A weight, or the values and scales of one in 8 bits, with its sharding."""
        if isinstance(weight, Eight):
            spec = specs[name]
            return Eight(_with(weight.values, mesh, spec), _with(weight.scales, mesh, PartitionSpec(spec[1])))
        return _with(weight, mesh, specs[name])

    layers = tuple(
        layer._replace(**{name: lying(name, getattr(layer, name)) for name in layer._fields}) for layer in shapes.layers
    )
    return Weights(
        lying("embedding", shapes.embedding),
        layers,
        lying("final_norm", shapes.final_norm),
        lying("head", shapes.head),
    )


def _sharding(mesh: Mesh, axes: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> NamedSharding:
    """Of a weight that is called so, of a layer's without its first axis. A tied head is the embedding, turned."""
    of_layer = axes["layers"].get(name)
    own = of_layer[1:] if of_layer else {"head": ("width", "vocabulary"), **axes}[name]
    try:
        return weight_sharding(mesh, own, shape)
    except ValueError as error:
        raise UserError(str(error)) from None


def abstract_cache(model: ModelConfig, config: EngineConfig, slots: int, mesh: Mesh) -> Cache:
    """The cache of `config.rows` rows on a mesh whose devices needn't be there."""
    shapes = jax.eval_shape(lambda: empty_cache(model, config.rows, slots, dtype_of(model, config)))
    spec = cache_sharding(mesh, shapes).spec
    return jax.tree.map(lambda each: _with(each, mesh, spec), shapes)


def _with(shape: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=NamedSharding(mesh, spec))


@jax.jit
def _rounded(matrix: jax.Array) -> Eight:
    return in_eight_bits(matrix.astype(jnp.float32))


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
