"""Small models made elsewhere, for this room's tests: a tokenizer of the byte-level kind, with a template of chats."""

import json
from pathlib import Path

import numpy as np
import tokenizers
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.huggingface import to_config

CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<file_sep>")
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_level(words: list[str], size: int = 400) -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer in the manner of SmolLM2's: digits apart, control tokens first."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in CONTROLS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(words, trainer)
    return made


def write_tokenizer(directory: Path, size: int = 400) -> tokenizers.Tokenizer:
    """Writes a tokenizer's files, and gives the library's own."""
    made = byte_level(["def add(a, b):\n    return a + b\n", "for i in range(100): print(i)", "schön, 漢字"] * 3, size)
    made.save(str(directory / "tokenizer.json"))
    config = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": {"content": "<|im_end|>"}}
    (directory / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": CHATML}))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    return made


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors in float32 by Hugging Face's names, in the order of its files, spelt out here once more."""
    random = np.random.default_rng(seed)
    width, query, key = config.width, config.heads * config.head_size, config.kv_heads * config.head_size
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, width)}
    for layer in range(config.layers):
        of_layer = {
            "input_layernorm": (width,),
            "mlp.down_proj": (width, config.ffn_width),
            "mlp.gate_proj": (config.ffn_width, width),
            "mlp.up_proj": (config.ffn_width, width),
            "post_attention_layernorm": (width,),
            "self_attn.k_proj": (key, width),
            "self_attn.o_proj": (width, query),
            "self_attn.q_proj": (query, width),
            "self_attn.v_proj": (key, width),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in of_layer.items()}
    shapes["model.norm.weight"] = (width,)
    if not config.tied_head:
        shapes["lm_head.weight"] = (config.vocab_size, width)
    return {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def write_folder(directory: Path, config: ModelConfig, tensors: dict[str, np.ndarray], shards: int = 1) -> None:
    """A Hugging Face folder, its weights written by Hugging Face's own library."""
    directory.mkdir(parents=True, exist_ok=True)
    write_tokenizer(directory, config.vocab_size)
    (directory / "config.json").write_text(json.dumps(to_config(config, next(iter(tensors.values())).dtype.name)))
    if shards == 1:
        save_file(tensors, directory / "model.safetensors")
        return
    names = {name: f"model-{number % shards + 1:05}-of-{shards:05}.safetensors" for number, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({name: tensors[name] for name in tensors if names[name] == file}, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def read_folder(directory: Path) -> dict[str, np.ndarray]:
    """The tensors of a folder, read by Hugging Face's own library."""
    return {
        name: tensor for file in sorted(directory.glob("*.safetensors")) for name, tensor in load_file(file).items()
    }
