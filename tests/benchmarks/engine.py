"""Tokens a second of the engine beside `transformers.generate`, on the same weights, in float32, on this machine.

    python -m tests.benchmarks.engine --peer=PYTHON_WITH_TRANSFORMERS_AND_TORCH [--layers=8 --width=512] [--tasks=one]

The weights are random, written as a Hugging Face folder, so no answer ends before its length: what is asked is how long
the work takes. Each task runs once to compile, which is told apart, and then three times; the best time counts, on the
clock and in seconds of processors (where other programs run, only these compare). The peer takes the tasks in the same
way, in batches of 16 padded on the left; a batch goes on until its longest answer is done.

    mixed     32 prompts of 16 to 256 tokens, answers of 16 to 128, greedy, 16 at once
    one       a prompt of 64 tokens, 96 more, greedy
    samples   64 samples of a prompt of 256 tokens, 32 tokens each, temperature 1
    first     a prompt of 512 tokens, one more
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.requests import Request
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract
from opencoder_jax.parallel.model_directory import LoadedModel
from opencoder_jax.tokenization.tokenizer import TextTokenizer

PEER = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM, GenerationConfig
folder, tasks = sys.argv[1], json.load(open(sys.argv[2]))
torch.set_num_threads(2)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
def run(task):
    for first in range(0, len(task["prompts"]), 16):
        prompts, lengths = task["prompts"][first : first + 16], task["lengths"][first : first + 16]
        size = max(map(len, prompts))
        ids = torch.tensor([[0] * (size - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (size - len(p)) + [1] * len(p) for p in prompts])
        sampled = dict(do_sample=False)
        if task["samples"] > 1:
            sampled = dict(do_sample=True, top_k=0, num_return_sequences=task["samples"])
        config = GenerationConfig(max_new_tokens=max(lengths), pad_token_id=0, **sampled)
        model.generate(ids, attention_mask=mask, generation_config=config)
for name, task in tasks.items():
    best = [1e9, 1e9]
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        run(task)
        best = [min(best[0], time.perf_counter() - wall), min(best[1], time.process_time() - cpu)]
    print(json.dumps([name, *best]), flush=True)
"""


class NoText(TextTokenizer):
    """As many ids as the model has, none of which has any text or ends an answer."""

    def __init__(self, size: int) -> None:
        self.vocab_size, self.ends, self._bytes = size, frozenset({size}), [b""] * size

    def encode_array(self, text: str) -> np.ndarray:
        raise NotImplementedError

    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        raise NotImplementedError


def weights(config: ModelConfig) -> dict[str, Any]:
    """Random weights in the shape of the decoder's state."""
    random = np.random.default_rng(0)
    _, shapes = abstract(config)
    return jax.tree.map(
        lambda w: random.standard_normal(w.shape, np.float32) * np.float32(0.05), nnx.to_pure_dict(shapes)
    )


def write_folder(folder: Path, config: ModelConfig, state: dict[str, Any]) -> None:
    """The same model as transformers reads it."""
    about = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    (folder / "config.json").write_text(json.dumps(about))
    names = {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "output": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    tensors = {
        "model.embed_tokens.weight": state["embedding"],
        "model.norm.weight": state["final_norm"],
        "lm_head.weight": state["head"].T,
    }
    for name, theirs in names.items():
        for layer, weight in enumerate(state["layers"][name]):
            if weight.ndim > 1:
                outputs_last = (-1, config.width) if name in ("output", "down") else (config.width, -1)
                weight = weight.reshape(outputs_last).T
            tensors[f"model.layers.{layer}.{theirs}.weight"] = weight
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "model.safetensors")


def tasks(vocabulary: int) -> dict[str, dict[str, Any]]:
    random = np.random.default_rng(1)
    prompt = lambda length: random.integers(1, vocabulary, length).tolist()  # noqa: E731
    return {
        "mixed": {
            "prompts": [prompt(n) for n in random.integers(16, 257, 32)],
            "lengths": random.integers(16, 129, 32).tolist(),
            "samples": 1,
        },
        "one": {"prompts": [prompt(64)], "lengths": [96], "samples": 1},
        "samples": {"prompts": [prompt(256)], "lengths": [32], "samples": 64},
        "first": {"prompts": [prompt(512)], "lengths": [1], "samples": 1},
    }


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def run(engine: Engine, task: dict[str, Any]) -> None:
    requests = [
        Request(tuple(prompt), SamplingConfig(float(task["samples"] > 1), max_tokens=length), seed)
        for prompt, length in zip(task["prompts"], task["lengths"], strict=True)
        for seed in range(task["samples"])
    ]
    engine.submit(requests)
    while engine.busy:
        engine.step(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="a Python that has transformers and torch; without it, the engine alone")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=16_384)
    parser.add_argument("--tasks", nargs="*", default=["mixed", "one", "samples", "first"])
    flags = parser.parse_args()
    width = flags.width
    config = ModelConfig(
        flags.vocabulary, flags.layers, width, width // 64, max(1, width // 256), 64, width * 8 // 3 // 64 * 64,
        context=1024, dtype="float32",
    )  # fmt: skip
    state = weights(config)
    print(f"{config.parameters() / 1e6:.0f} million weights, float32, {jax.devices()[0].device_kind}")
    graphdef, shapes = abstract(config)
    nnx.replace_by_pure_dict(shapes, state)
    model = LoadedModel(config, graphdef, shapes, 0)
    chosen = {name: task for name, task in tasks(flags.vocabulary).items() if name in flags.tasks}
    found: dict[str, tuple[float, float]] = {}
    for name, task in chosen.items():
        engine = Engine(model, NoText(flags.vocabulary), EngineConfig(rows={"samples": 64}.get(name, 16)))
        compiling = timed(lambda: run(engine, task))  # noqa: B023
        best = (float("inf"), float("inf"))
        engine.device_seconds = spent = 0.0
        for _ in range(3):
            engine._slots.held = [np.zeros(0, np.int32)] * len(engine._slots.held)  # nothing is read beforehand
            now = timed(lambda: run(engine, task))  # noqa: B023
            best, spent = (min(best[0], now[0]), min(best[1], now[1])), spent + now[0]
        found[name] = best
        useful = sum(task["lengths"]) * task["samples"]
        print(
            f"{name}: {useful / best[0]:.0f} tokens/s ({best[0]:.2f} s, {best[1]:.2f} s of processors); outside the"
            f" device {1 - engine.device_seconds / spent:.1%}; first run, with compiling, {compiling[0]:.1f} s"
            f" ({compiling[1]:.1f} s of processors)",
            flush=True,
        )
    if not flags.peer:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(folder, config, state)
        (folder / "tasks.json").write_text(json.dumps(chosen))
        (folder / "peer.py").write_text(PEER)
        command = [flags.peer, str(folder / "peer.py"), name, str(folder / "tasks.json")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as peer:
            assert peer.stdout
            for line in peer.stdout:
                task_name, wall, cpu = json.loads(line)
                own = found[task_name]
                useful = sum(chosen[task_name]["lengths"]) * chosen[task_name]["samples"]
                print(
                    f"{task_name}: transformers {useful / wall:.0f} tokens/s ({wall:.2f} s, {cpu:.2f} s of processors):"
                    f" the engine is {wall / own[0]:.2f} times as fast, {cpu / own[1]:.2f} by processors",
                    flush=True,
                )
            _, errors = peer.communicate()
        if peer.returncode:
            sys.exit(errors[-2000:])


if __name__ == "__main__":
    main()
