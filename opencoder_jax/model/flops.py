"""How much arithmetic a token costs, and how much of a chip's peak a run gets: the model FLOPs utilisation, MFU.

    MFU = tokens a second x FLOPs a token / (chips x peak FLOP/s of a chip)
    FLOPs a token = 6 x matrix parameters + 6 x layers x heads x head size x (row length + 1)

A token goes through each weight of a matrix once forward (2 FLOPs) and twice backward (4); the embedding is a look-up
and doesn't count. A query meets (length + 1) / 2 keys on average, in two products. What is computed again to save
memory, and what lies above the diagonal or in another document, isn't counted.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from opencoder_jax.model.config import ModelConfig

FORMULA = (
    "MFU = tokens/s x FLOPs a token / (chips x peak); FLOPs a token = 6 x matrix parameters"
    " + 6 x layers x heads x head size x (row length + 1)"
)

# Dense bfloat16 FLOP/s of what JAX calls one device, by `Device.device_kind`. From the makers' data sheets: Google
# Cloud's TPU system architecture pages; NVIDIA's for A100, H100, H200 and H800 (SXM). A v7x chip is two devices.
PEAK_FLOPS: Mapping[str, float] = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA H800": 989.4e12,
}


def matrix_parameters(model: ModelConfig) -> int:
    """Weights that a token is multiplied with: all but the embedding and the norms."""
    attention = model.width * model.head_size * (2 * model.heads + 2 * model.kv_heads)
    return model.layers * (attention + 3 * model.width * model.ffn_width) + model.width * model.vocab_size


def flops_per_token(model: ModelConfig, length: int) -> float:
    """Forward and backward, for rows of `length` tokens whose documents are one: the most that attention can cost."""
    return 6.0 * matrix_parameters(model) + attention_flops_per_token(model, length)


def attention_flops_per_token(model: ModelConfig, length: int) -> float:
    """The part of `flops_per_token` in which tokens meet one another."""
    return 6.0 * model.layers * model.heads * model.head_size * (length + 1)


def mfu(tokens_per_second: float, flops: float, chips: int, device_kind: str) -> float | None:
    """The share of the chips' peak, 0 to 1; None for a chip whose peak isn't known here.

    Args:
        flops: of a token, see `flops_per_token`.
    """
    peak = PEAK_FLOPS.get(device_kind)
    return None if peak is None else tokens_per_second * flops / (chips * peak)


def executed_flops(jaxpr: Any) -> float:
    """What a traced program multiplies and adds in its matrix products, on all devices: loops times their length.

    Kernels count what they say of themselves (`cost_estimate`), and nothing where they say nothing.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        times = 1.0
        if equation.primitive.name == "dot_general":
            (inner, _), _ = equation.params["dimension_numbers"]
            left, result = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2.0 * prod(result) * prod(left[axis] for axis in inner)
        elif equation.primitive.name == "pallas_call":
            cost = equation.params.get("cost_estimate")
            total += float(cost.flops) if cost else 0.0
            continue
        elif equation.primitive.name == "scan":
            times = equation.params["length"]
        elif equation.primitive.name == "shard_map":  # its body has the shapes of one device
            mesh = equation.params["mesh"]
            times = prod(mesh.shape[axis] for axis in equation.params.get("manual_axes", mesh.axis_names))
        total += times * sum(map(executed_flops, _inside(equation)))
    return total


def kernel_calls(jaxpr: Any) -> dict[str, tuple[float, list[tuple[int, ...]]]]:
    """Each Pallas kernel of a traced program by its name: FLOPs of one run on one device, and its operands' shapes.

    The FLOPs are what the kernel says of itself (`cost_estimate`), and 0 where it says nothing.
    """
    found: dict[str, tuple[float, list[tuple[int, ...]]]] = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            cost = equation.params.get("cost_estimate")
            shapes = [operand.aval.shape for operand in equation.invars]
            found[equation.params["name"]] = float(cost.flops) if cost else 0.0, shapes
        else:
            for inside in _inside(equation):
                found |= kernel_calls(inside)
    return found


def _inside(equation: Any) -> Iterator[Any]:
    """The programs that an operation holds: the body of a loop, what is computed again, a device's part."""
    for parameter in equation.params.values():
        for inside in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
            inside = getattr(inside, "jaxpr", inside)
            if hasattr(inside, "eqns"):
                yield inside
