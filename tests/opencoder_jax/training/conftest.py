"""A run so small that its steps take milliseconds: what the room's tests share."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import sentencepiece

from opencoder_jax.data.batches import DataConfig
from opencoder_jax.data.token_records import write_records
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.training.mesh import MeshConfig
from opencoder_jax.training.optimizer import OptimizerConfig
from opencoder_jax.training.run import Recipe, TrainConfig

VOCABULARY = 300
SMALL: dict[str, Any] = {
    "ModelConfig.vocab_size": VOCABULARY,
    "ModelConfig.layers": 2,
    "ModelConfig.width": 32,
    "ModelConfig.heads": 4,
    "ModelConfig.kv_heads": 2,
    "ModelConfig.head_size": 8,
    "ModelConfig.ffn_width": 64,
    "ModelConfig.context": 64,
    "ModelConfig.dtype": "float32",
    "DataConfig.mixture": {"refinecode": 1.0},
    "DataConfig.phases": ((0, 16, 8),),
    "OptimizerConfig.peak_learning_rate": 1e-2,
    "OptimizerConfig.warmup_steps": 2,
    "TrainConfig.steps": 6,
    "TrainConfig.loss_chunk": 16,
    "TrainConfig.log_every": 1,
    "TrainConfig.checkpoint_every": 2,
    "TrainConfig.keep": 3,
}


def small_recipe(**changes: Any) -> Recipe:
    """The small recipe with fields changed; `TrainConfig_steps=8` stands for TrainConfig.steps."""
    fields = SMALL | {name.replace("_", ".", 1): value for name, value in changes.items()}
    configs = []
    for config in (ModelConfig, DataConfig, MeshConfig, OptimizerConfig, TrainConfig):
        own = f"{config.__name__}."
        configs.append(config(**{name.removeprefix(own): value for name, value in fields.items() if name.startswith(own)}))
    recipe = Recipe(*configs)
    recipe.check()
    return recipe


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Many tests train the same program: it is compiled once, for the processes that tests start too."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cache.items():
            patch.setenv(name, value)
        jax.config.update("jax_compilation_cache_dir", cache["JAX_COMPILATION_CACHE_DIR"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        yield
        jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def tokenizer_model() -> bytes:
    """A tokenizer of bytes and a few pieces, with the control tokens that the house needs."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["def add(a, b):", "    return a + b", "for i in range(10):", "    print(i)"] * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        pad_id=3,
        control_symbols=["<|im_end|>", "<|im_start|>"],
        add_dummy_prefix=False,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, tokenizer_model: bytes) -> Path:
    """Documents that count upwards from a random number: `refinecode`, and `held_out` of other numbers."""
    directory = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name, documents in (("refinecode", 60), ("held_out", 8)):
        records = []
        for _ in range(documents):
            length, start = random.integers(5, 40), random.integers(4, 200)
            records.append((np.append(np.arange(start, start + length), 2), None))
        write_records(directory / name, [records[::2], records[1::2]], tokenizer_model)
    return directory
