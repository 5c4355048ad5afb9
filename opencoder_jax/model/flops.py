"""How much arithmetic a token costs, and how much of a chip's peak a run gets: the model FLOPs utilisation, MFU.

    MFU = tokens a second x FLOPs a token / (chips x peak FLOP/s of a chip)
    FLOPs a token = 6 x matrix parameters + 12 x layers x heads x head size x keys that a token sees

A token goes through each weight of a matrix once forward (2 FLOPs) and twice backward (4); the embedding is a look-up
and doesn't count. A query meets its keys in two products: (length + 1) / 2 of them in a row that is one document. What
is computed again to save memory, and what lies above the diagonal or in another document, isn't counted.
"""

from collections.abc import Mapping

from opencoder_jax.model.config import ModelConfig

FORMULA = (
    "MFU = tokens/s x FLOPs a token / (chips x peak); FLOPs a token = 6 x matrix parameters"
    " + 12 x layers x heads x head size x keys that a token sees"
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


def flops_per_token(model: ModelConfig, length: float) -> float:
    """Forward and backward, for rows of `length` tokens whose documents are one: the most that attention can cost.

    Where documents hide from one another, what they cost is that of the length whose queries meet as many keys.
    """
    return 6.0 * model.matrix_parameters() + attention_flops_per_token(model, length)


def attention_flops_per_token(model: ModelConfig, length: float) -> float:
    """The part of `flops_per_token` in which tokens meet one another."""
    return 6.0 * model.layers * model.heads * model.head_size * (length + 1)


def mfu(tokens_per_second: float, flops: float, chips: int, device_kind: str) -> float | None:
    """The share of the chips' peak, 0 to 1; None for a chip whose peak isn't known here.

    Args:
        flops: of a token, see `flops_per_token`.
    """
    peak = PEAK_FLOPS.get(device_kind)
    return None if peak is None else tokens_per_second * flops / (chips * peak)
