"""How fast training is on this machine: our step beside Hugging Face transformers', and what the loop adds to the step.

    uv pip install -e '.[peers]'
    python -m tests.benchmarks.training

The same network (`gin_configs/models/cookbook.gin`, or a few times wider with --width), the same tokens, float32, AdamW
with clipping, no recomputation, on the CPU's cores. Both are run in processes of their own, by turns, so that neither
has the other's threads beside it and a slow minute of the machine falls on both; the figures are medians. Then a run of
`train` on records of its own shows what the loop costs beside its step, and how long steps waited for their batches.

The limit: 6 FLOPs a matrix parameter and token, and attention's; the processor's own speed at a product of two float32
matrices of 2048 is measured in the same run.
"""

import argparse
import dataclasses
import importlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from opencoder_jax import recipe as recipes
from opencoder_jax.model.config import ModelConfig

ROWS, LENGTH = 8, 256
WARM, STEPS = 4, 24


def model_config(width: int) -> ModelConfig:
    """The cookbook's network, or one so wide."""
    recipes.bind(["gin_configs/models/cookbook.gin"])
    config = ModelConfig()
    factor = width // config.width
    return dataclasses.replace(
        config,
        width=config.width * factor,
        heads=config.heads * factor,
        kv_heads=config.kv_heads * factor,
        ffn_width=config.ffn_width * factor,
        dtype="float32",
    )


def timed(step: Callable[[], Any]) -> list[float]:
    """Seconds of each step, after some that aren't counted."""
    seconds = []
    for _ in range(WARM + STEPS):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return seconds[WARM:]


def tokens_of(vocabulary: int) -> np.ndarray:
    """int32 [ROWS, LENGTH + 1]."""
    return np.random.default_rng(0).integers(0, vocabulary, (ROWS, LENGTH + 1), dtype=np.int32)


def ours(config: ModelConfig) -> list[float]:
    """Seconds of our steps."""
    from functools import partial

    import jax

    from opencoder_jax.data.batches import Batch, DataConfig
    from opencoder_jax.parallel.mesh import MeshConfig, make_mesh
    from opencoder_jax.training.optimizer import OptimizerConfig
    from opencoder_jax.training.run import Recipe, TrainConfig
    from opencoder_jax.training.step import compiled_train_step, initial_state

    train = TrainConfig(loss_chunk=LENGTH)
    recipe = Recipe(config, DataConfig(phases=((0, LENGTH, ROWS),)), MeshConfig(), OptimizerConfig(), train)
    tokens = tokens_of(config.vocab_size)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    batch = Batch(tokens[:, :-1], tokens[:, 1:], positions, np.ones((ROWS, LENGTH), np.float32))
    mesh = make_mesh(recipe.mesh)
    with jax.set_mesh(mesh):
        state = jax.jit(partial(initial_state, recipe))()
        update = compiled_train_step(recipe, mesh)

        def step() -> None:
            nonlocal state
            state, measured = update(state, batch, 1e-4)
            jax.block_until_ready((state, measured))

        return timed(step)


def transformers(config: ModelConfig) -> list[float]:
    """Seconds of transformers' steps."""
    # Installed by an extra, so not among the project's own imports.
    torch, llama = importlib.import_module("torch"), importlib.import_module("transformers")
    model = llama.LlamaForCausalLM(
        llama.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.ffn_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_size,
            max_position_embeddings=config.context,
            rope_theta=config.rope_theta,
            rms_norm_eps=config.norm_eps,
            tie_word_embeddings=False,
            use_cache=False,
        )
    )
    assert sum(weight.numel() for weight in model.parameters()) == config.parameters()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    tokens = torch.from_numpy(tokens_of(config.vocab_size).astype(np.int64))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = model(input_ids=tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return timed(step)


def peak(_: ModelConfig) -> list[float]:
    """Seconds of a product of two float32 matrices of 2048, by XLA."""
    import jax
    import jax.numpy as jnp

    product = jax.jit(jnp.matmul)
    matrix = jnp.ones((2048, 2048), jnp.float32)
    return timed(lambda: jax.block_until_ready(product(matrix, matrix)))


SIDES = {"ours": ours, "transformers": transformers, "peak": peak}


def in_a_child(side: str, width: int) -> float:
    """The median seconds of a side's step, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.training", f"--only={side}", f"--width={width}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side}: {done.stderr.strip().splitlines()[-1]}")
    return statistics.median(json.loads(done.stdout.splitlines()[-1]))


def loop(config: ModelConfig) -> None:
    """Trains on records of its own, and prints what stands between its steps."""
    import sentencepiece

    from opencoder_jax.data.batches import DataConfig
    from opencoder_jax.data.token_records import write_records
    from opencoder_jax.parallel.mesh import MeshConfig
    from opencoder_jax.training.loop import train
    from opencoder_jax.training.metrics import read_metrics
    from opencoder_jax.training.optimizer import OptimizerConfig
    from opencoder_jax.training.run import Recipe, TrainConfig

    small = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["def add(a, b):", "    return a + b"] * 4),
        model_writer=small,
        model_type="bpe",
        vocab_size=280,
        byte_fallback=True,
        pad_id=3,
        control_symbols=["<|im_end|>", "<|im_start|>"],
        add_dummy_prefix=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    steps = 300
    # A network that costs nothing, so that what is left is the loop; and the real one, for the wait.
    tiny = dataclasses.replace(
        config, vocab_size=280, layers=1, width=16, heads=2, kv_heads=2, head_size=8, ffn_width=16
    )
    for name, network, rows, length in (
        ("tiny", tiny, 2, 16),
        ("real", dataclasses.replace(config, vocab_size=280), 8, 256),
    ):
        with tempfile.TemporaryDirectory() as place:
            data = Path(place) / "data"
            random = np.random.default_rng(0)
            records = [(np.append(random.integers(4, 280, 400), 2), None) for _ in range(2000)]
            write_records(data / "refinecode", [records], small.getvalue(), 2**31)
            settings = TrainConfig(steps=steps, loss_chunk=length, log_every=50, checkpoint_every=steps)
            recipe = Recipe(
                network,
                DataConfig(phases=((0, length, rows),)),
                MeshConfig(),
                OptimizerConfig(warmup_steps=10),
                settings,
            )
            train(recipe, data, Path(place) / "run")
            found = read_metrics(Path(place) / "run" / "metrics.jsonl")
        quiet = [row for row in found if row["step"] % 50 == 0 and 50 < row["step"] < steps]
        seconds = statistics.median(rows * length / row["tokens_per_second"] for row in quiet)
        wait = statistics.median(row["input_wait"] for row in quiet)
        print(f"loop, {name} network: {seconds * 1e3:.2f} ms a step, waiting for input {wait:.2%} of it")


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SIDES)
    parser.add_argument("--width", type=int, default=0, help="of the network; a multiple of the cookbook's")
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    recipes.bind(["gin_configs/models/cookbook.gin"])
    config = model_config(flags.width or ModelConfig().width)
    if flags.only:
        print(json.dumps(SIDES[flags.only](config)))
        return
    from opencoder_jax.model.flops import flops_per_token

    print(
        f"{config.parameters():,} parameters, {ROWS} rows of {LENGTH} tokens, float32; medians of {flags.rounds} rounds"
    )
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(flags.rounds):
        for side in SIDES:
            found[side].append(in_a_child(side, config.width))
    tokens = ROWS * LENGTH
    speed = 2 * 2048**3 / statistics.median(found["peak"])
    cost = flops_per_token(config, LENGTH)
    for side in ("ours", "transformers"):
        seconds = statistics.median(found[side])
        print(
            f"{side:12} {tokens / seconds:9,.0f} tokens/s, {seconds * 1e3:7.1f} ms a step, "
            f"{tokens * cost / seconds / speed:.0%} of the product's {speed / 1e9:.0f} GFLOP/s"
        )
    ratios = [other / own for own, other in zip(found["ours"], found["transformers"], strict=True)]
    print(f"ours / transformers: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    loop(config)


if __name__ == "__main__":
    main()
