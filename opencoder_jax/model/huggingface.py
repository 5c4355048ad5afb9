"""The decoder as Hugging Face's `LlamaForCausalLM` has it: the names and shapes of the tensors, and config.json.

A matrix of theirs is [out, in], with all heads in one axis, and each layer's is a tensor of its own; ours is [in, out]
and stacked over the layers. So a tensor of theirs, transposed and reshaped, is one layer of ours; only the embedding
is the same on both sides. (llama.cpp's files have theirs under other names, with the rows of q and k in another order.)
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract
from opencoder_jax.recipe import UserError

# By the names of the decoder's attributes; of the layers, below "model.layers.N.".
TABLES = {"embedding": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head"}
LAYER = {
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


class Weight(NamedTuple):
    """A weight of the decoder and the tensors that it's made of.

    Attributes:
        path: of the decoder's attribute, such as ("layers", "query").
        shape: of ours; that of a layer's has the layers in front.
        names: of theirs: one, or one a layer.
        theirs: the shape of each of them.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    names: tuple[str, ...]
    theirs: tuple[int, ...]

    @property
    def stacked(self) -> bool:
        return len(self.path) > 1

    @property
    def one(self) -> tuple[int, ...]:
        """The shape of what is ours of one tensor of theirs."""
        return self.shape[1:] if self.stacked else self.shape

    def from_theirs(self, tensor: np.ndarray) -> np.ndarray:
        """Ours of one tensor of theirs; of a table, also of some of its rows."""
        if self.path == ("embedding",):
            return tensor
        return tensor.T.reshape(self.one) if self.stacked else tensor.T

    def to_theirs(self, ours: np.ndarray) -> np.ndarray:
        """One tensor of theirs; of a table, also of some of its ids."""
        if self.path == ("embedding",):
            return ours
        return ours.reshape(self.theirs[::-1]).T if self.stacked else ours.T


def weights(config: ModelConfig) -> list[Weight]:
    """All weights of a decoder, in the order of its attributes."""
    _, state = abstract(config)
    shapes = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(state))
    found = []
    for keys, leaf in shapes:
        path, shape = tuple(key.key for key in keys), tuple(leaf.shape)
        if path[0] == "layers":
            names = tuple(f"model.layers.{layer}.{LAYER[path[1]]}.weight" for layer in range(config.layers))
            theirs = _matrix(path[1], shape[1:])
        else:
            names, theirs = (f"{TABLES[path[0]]}.weight",), shape if path[0] != "head" else shape[::-1]
        found.append(Weight(path, shape, names, theirs))
    return found


def _matrix(name: str, ours: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of theirs for one layer of ours."""
    if len(ours) < 2:
        return ours
    inner = ours[:-1] if name == "output" else ours[:1]
    outer = ours[len(inner) :]
    return int(np.prod(outer)), int(np.prod(inner))


def to_config(model: ModelConfig, dtype: str) -> dict[str, Any]:
    """config.json, as transformers of all releases, vLLM and llama.cpp's converter read it. `dtype` is the tensors'."""
    scaling = model.rope_scaling and {"rope_type": "llama3", **dict(zip(LLAMA3, model.rope_scaling, strict=True))}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocab_size,
        "hidden_size": model.width,
        "intermediate_size": model.ffn_width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": model.context,
        "initializer_range": model.init_std,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": model.tied_head,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "torch_dtype": dtype,
        "use_cache": True,
    }


# What the network can't express, by the field that says so, with the values that it can.
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("llama", "mistral"),  # Mistral's without a window is Llama
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "sliding_window": (None,),
    "quantization_config": (None,),
    "partial_rotary_factor": (1, None),
    "num_local_experts": (None,),
}


def from_config(found: Mapping[str, Any], dtype: str, file: str) -> ModelConfig:
    """The sizes of a model by its config.json.

    Args:
        dtype: of the computation.
        file: what errors call it.

    Raises:
        UserError: it isn't a model that the decoder can be; the message names the field.
    """
    for field, can in _ONLY.items():
        value = found.get(field, can[-1])
        if value not in can:
            words = ", ".join(map(str, can))
            raise UserError(f"{file}: {field} is {_short(value)}, and the decoder can only have {words}")
    try:
        heads = found["num_attention_heads"]
        return ModelConfig(
            vocab_size=found["vocab_size"],
            layers=found["num_hidden_layers"],
            width=found["hidden_size"],
            heads=heads,
            kv_heads=_or(found.get("num_key_value_heads"), heads),
            head_size=_or(found.get("head_dim"), found["hidden_size"] // heads),
            ffn_width=found["intermediate_size"],
            context=found["max_position_embeddings"],
            norm_eps=found.get("rms_norm_eps", 1e-6),
            init_std=_or(found.get("initializer_range"), 0.02),
            tied_head=bool(found.get("tie_word_embeddings", False)),
            dtype=dtype,
            **_rope(found, file),
        )
    except KeyError as error:
        raise UserError(f"{file}: the field {error.args[0]} is missing") from None
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{file}: not a model that the decoder can be: {error}") from None


def _rope(found: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The fields of the rotary embedding, in the old form (rope_theta, rope_scaling) or the new (rope_parameters)."""
    new = found.get("rope_parameters")
    field = "rope_scaling" if new is None else "rope_parameters"
    scaling = _or(found.get(field), {})
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    theta = float(scaling.get("rope_theta", found.get("rope_theta", 10_000.0)))
    if scaling.get("partial_rotary_factor", 1) != 1:
        raise UserError(f"{file}: {field}.partial_rotary_factor isn't 1: the decoder turns heads whole")
    if kind == "default":
        return {"rope_theta": theta}
    if kind != "llama3":
        raise UserError(f"{file}: {field} is of type {_short(kind)}, and the decoder can only have llama3, or none")
    return {"rope_theta": theta, "rope_scaling": tuple(scaling[name] for name in LLAMA3)}


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
