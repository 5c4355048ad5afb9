"""What transformers' LlamaForCausalLM makes of random weights, in float64: llama_golden.npz, for test_llama.py.

    uv venv /tmp/peer && uv pip install --python /tmp/peer torch transformers
    PYTHONPATH=. /tmp/peer/bin/python tests/opencoder_jax/model/llama_golden.py

Made with transformers 5.24 and torch 2.15. The weights are drawn anew on both sides, from NumPy's generator, whose
stream is stable; only the results are stored.
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).with_name("llama_golden.npz")
PROMPT, GREEDY = 12, 8

# OpenCoder's two shapes come first: every head with its own keys and size 160, as the 1.5B; grouped heads, as the 8B.
SIZES: dict[str, dict[str, Any]] = {
    "1p5b": {
        "vocab_size": 48,
        "layers": 2,
        "width": 56,
        "heads": 2,
        "kv_heads": 2,
        "head_size": 160,
        "ffn_width": 64,
        "rope_theta": 10_000.0,
    },
    "8b": {
        "vocab_size": 48,
        "layers": 3,
        "width": 64,
        "heads": 8,
        "kv_heads": 2,
        "head_size": 16,
        "ffn_width": 112,
        "rope_theta": 500_000.0,
    },
    # What OpenCoder has not, and others of Llama's family have: a tied head, Llama 3's slower turns, one key head.
    "llama3": {
        "vocab_size": 48,
        "layers": 2,
        "width": 64,
        "heads": 4,
        "kv_heads": 1,
        "head_size": 32,
        "ffn_width": 96,
        "rope_theta": 500_000.0,
        "rope_scaling": (8.0, 1.0, 4.0, 64),
        "tied_head": True,
    },
}


def weights_of(size: str) -> dict[str, np.ndarray]:
    """Weights as the decoder names and lays them out, float32, layers stacked."""
    of, random = SIZES[size], np.random.default_rng(7)
    layers, width, heads, kv_heads, head = (of[n] for n in ("layers", "width", "heads", "kv_heads", "head_size"))
    shapes = {
        "embedding": (of["vocab_size"], width),
        "layers.attention_norm": (layers, width),
        "layers.query": (layers, width, heads, head),
        "layers.key": (layers, width, kv_heads, head),
        "layers.value": (layers, width, kv_heads, head),
        "layers.output": (layers, heads, head, width),
        "layers.ffn_norm": (layers, width),
        "layers.gate": (layers, width, of["ffn_width"]),
        "layers.up": (layers, width, of["ffn_width"]),
        "layers.down": (layers, of["ffn_width"], width),
        "final_norm": (width,),
        "head": (width, of["vocab_size"]),
    }
    if of.get("tied_head"):
        del shapes["head"]
    return {
        name: (random.uniform(0.5, 1.5, shape) if "norm" in name else random.normal(0, 0.15, shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def prompt_of(size: str) -> np.ndarray:
    """Tokens [1, PROMPT]."""
    return np.random.default_rng(8).integers(0, SIZES[size]["vocab_size"], (1, PROMPT))


def some_entries(gradient: np.ndarray) -> np.ndarray:
    """What is stored of a gradient: 24 entries, and its norm."""
    flat = gradient.reshape(-1)
    chosen = np.random.default_rng(9).integers(0, flat.size, 24)
    return np.append(flat[chosen], np.linalg.norm(flat))


def main() -> None:
    """Writes the golden file."""
    # Not of the project's environment, so not among the imports.
    torch, transformers = map(importlib.import_module, ("torch", "transformers"))
    golden = {}
    for size, of in SIZES.items():
        tied, rope = of.get("tied_head", False), {"rope_type": "default", "rope_theta": of["rope_theta"]}
        if scaling := of.get("rope_scaling"):
            names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
            rope |= {"rope_type": "llama3", **dict(zip(names, scaling, strict=True))}
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=of["vocab_size"],
                hidden_size=of["width"],
                intermediate_size=of["ffn_width"],
                num_hidden_layers=of["layers"],
                num_attention_heads=of["heads"],
                num_key_value_heads=of["kv_heads"],
                head_dim=of["head_size"],
                rms_norm_eps=1e-5,
                rope_parameters=rope,
                tie_word_embeddings=tied,
                attention_bias=False,
                attn_implementation="eager",
            )
        ).double()
        # A matrix of theirs is [out, in], all heads in one axis.
        ours = weights_of(size)
        their_names = {
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

        def theirs(name: str, weight: np.ndarray) -> np.ndarray:
            if weight.ndim == 1:
                return weight
            return (
                weight.reshape(len(weight), -1)
                if name in ("query", "key", "value")
                else weight.reshape(-1, weight.shape[-1])
            ).T

        state = {
            "model.embed_tokens.weight": ours["embedding"],
            "model.norm.weight": ours["final_norm"],
            "lm_head.weight": ours["embedding"] if tied else ours["head"].T,
        }
        for name, their_name in their_names.items():
            for layer, weight in enumerate(ours[f"layers.{name}"]):
                state[f"model.layers.{layer}.{their_name}.weight"] = theirs(name, weight)
        model.load_state_dict({name: torch.tensor(np.ascontiguousarray(value)) for name, value in state.items()})

        tokens = torch.tensor(prompt_of(size))
        with torch.no_grad():
            for _ in range(GREEDY):
                following = model(tokens).logits[:, -1].argmax(-1, keepdim=True)
                tokens = torch.cat([tokens, following], dim=1)
        out = model(tokens, labels=tokens)
        out.loss.backward()
        golden[f"{size}.tokens"] = tokens.numpy().astype(np.int32)
        golden[f"{size}.logits"] = out.logits[0].detach().numpy().astype(np.float32)
        golden[f"{size}.loss"] = np.float64(out.loss.detach().numpy())
        of_theirs = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
        gradients = {
            "embedding": of_theirs["model.embed_tokens.weight"],
            "final_norm": of_theirs["model.norm.weight"],
            **({} if tied else {"head": of_theirs["lm_head.weight"].T}),
        }
        for name, their_name in their_names.items():
            stacked = [of_theirs[f"model.layers.{layer}.{their_name}.weight"].T for layer in range(of["layers"])]
            gradients[f"layers.{name}"] = np.stack(stacked).reshape(ours[f"layers.{name}"].shape)
        for name, gradient in gradients.items():
            golden[f"{size}.gradient.{name}"] = some_entries(gradient)
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main()
