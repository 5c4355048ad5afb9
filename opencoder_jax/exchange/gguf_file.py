"""A model in a GGUF file, llama.cpp's format, as Hugging Face has it: names, shapes, config.json and numbers.

`gguf` reads and dequantises. llama.cpp keeps the rows of q and k so that the rotary embedding turns neighbours; theirs
turns (i, i + D/2): the rows are put back. What a quantised file holds is a rounded model, exactly taken over.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from opencoder_jax.exchange import gguf_tokenizer
from opencoder_jax.recipe import UserError

_TABLES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROPE_FACTORS = "rope_freqs"  # how much slower each pair turns: Llama 3's scaling


class GGUFFile:
    """The tensors of a file, and what it says of the model.

    Attributes:
        config: as config.json.
        about: the model's name and licence, None where they aren't said.
        files: those of the tokenizer, by their names.
        shapes: of the tensors, by Hugging Face's names.
        dtypes: what an exact copy of a tensor needs.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError: it isn't a GGUF file, or not of a model that can be read."""
        if not find_spec("gguf"):
            raise UserError(f"{path}: reading it takes pip install gguf")
        import gguf

        self._path, self._dequantize = path, gguf.quants.dequantize
        try:
            reader = gguf.GGUFReader(path)
        except Exception as error:  # whatever a damaged file raises
            raise UserError(f"{path}: not a GGUF file, or a damaged one ({error})") from None
        self._metadata: dict[str, Any] = {
            name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")
        }
        self._tensors = {_name(tensor.name): tensor for tensor in reader.tensors}
        self.about = {name: self._metadata.get(f"general.{name}") for name in ("name", "license")}
        factors = self._tensors.pop(_ROPE_FACTORS, None)
        self.config = self._config(None if factors is None else self._numbers(factors, 0, None))
        self.files = gguf_tokenizer.hugging_face_files(self._metadata, str(path))
        # GGUF's shapes begin with the axis that runs fastest.
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(map(int, tensor.shape[::-1])) for name, tensor in self._tensors.items()
        }
        halves = {"F16": "float16", "BF16": "bfloat16"}
        self.dtypes: Mapping[str, str] = {
            n: halves.get(tensor.tensor_type.name, "float32") for n, tensor in self._tensors.items()
        }

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """A tensor, or some of its rows, in float32. Raises UserError for a kind that isn't known."""
        found = self._numbers(self._tensors[name], start, stop)
        for projection, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if f".{projection}." in name:
                found = found.reshape(self.config[heads], -1, 2, found.shape[1]).swapaxes(1, 2).reshape(found.shape)
        return found

    def _numbers(self, tensor: Any, start: int, stop: int | None) -> np.ndarray:
        try:
            return self._dequantize(tensor.data[start:stop], tensor.tensor_type).astype(np.float32, copy=False)
        except (NotImplementedError, KeyError):
            kind = tensor.tensor_type.name
            raise UserError(f"{self._path}: {tensor.name} is of type {kind}, which can't be dequantised") from None

    def _config(self, rope_factors: np.ndarray | None) -> dict[str, Any]:
        """The fields of config.json, as `model/huggingface.py` reads and refuses them."""
        architecture = self._metadata.get("general.architecture")

        def of(key: str, default: Any = None) -> Any:
            return self._metadata.get(f"{architecture}.{key}", default)

        heads = of("attention.head_count", 1)
        size = of("attention.key_length", of("embedding_length", 0) // heads)
        config = {
            "model_type": architecture,
            "vocab_size": of("vocab_size", len(self._metadata.get("tokenizer.ggml.tokens", ()))),
            "hidden_size": of("embedding_length"),
            "intermediate_size": of("feed_forward_length"),
            "num_hidden_layers": of("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": of("attention.head_count_kv", heads),
            "head_dim": size,
            "max_position_embeddings": of("context_length"),
            "rms_norm_eps": _shortest(of("attention.layer_norm_rms_epsilon", 1e-5)),
            "rope_theta": of("rope.freq_base", 10_000.0),
            "partial_rotary_factor": of("rope.dimension_count", size) / size,
            "num_local_experts": of("expert_count") or None,
            "tie_word_embeddings": "lm_head.weight" not in self._tensors,
            "rope_scaling": None,
        }
        if rope_factors is not None:
            config["rope_scaling"] = self._llama3(rope_factors, config["rope_theta"], size)
        elif of("rope.scaling.type", "none") != "none":
            config["rope_scaling"] = {"rope_type": of("rope.scaling.type")}
        return config

    def _llama3(self, factors: np.ndarray, theta: float, size: int) -> dict[str, Any]:
        """Llama 3's scaling, of which a GGUF file has the factors that come out; only Meta's are known."""
        scaling = {
            "rope_type": "llama3",
            "factor": float(factors.max()),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        turns = 8192 * theta ** (-np.arange(0, size, 2) / size) / (2 * np.pi)
        kept = np.clip((turns - 1) / 3, 0, 1)
        if not np.allclose(1 / (kept + (1 - kept) / factors.max()), factors, rtol=1e-3):
            raise UserError(f"{self._path}: rope_freqs.weight isn't a scaling of Llama 3's, and no other is known")
        return scaling


def _name(theirs: str) -> str:
    """Hugging Face's name of a tensor; an unknown one stays."""
    parts = theirs.removesuffix(".weight").split(".")
    if parts[0] == "blk" and len(parts) == 3 and parts[2] in _LAYER:
        return f"model.layers.{parts[1]}.{_LAYER[parts[2]]}.weight"
    if theirs == f"{_ROPE_FACTORS}.weight":
        return _ROPE_FACTORS
    return f"{_TABLES[parts[0]]}.weight" if parts[0] in _TABLES and len(parts) == 1 else theirs


def _shortest(value: float) -> float:
    """The shortest decimal that is the same float32, in which GGUF keeps numbers: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
