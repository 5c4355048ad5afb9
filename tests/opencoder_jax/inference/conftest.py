"""What the room's tests share: a small tokenizer, and models of a few thousand weights that nobody trained."""

import io
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
from flax import nnx

from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.engine import Engine
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract
from opencoder_jax.parallel.model_directory import LoadedModel
from opencoder_jax.tokenization.tokenizer import Tokenizer

CONFIG = ModelConfig(300, 2, 32, 4, 2, 16, 48, context=256, dtype="float32")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Bytes, a few pieces, and the control tokens that the house needs."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["def add(a, b):", "    return a + b", "for i in range(10):", "    print(i)"] * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=CONFIG.vocab_size,
        byte_fallback=True,
        pad_id=3,
        control_symbols=["<|im_end|>", "<|im_start|>"],
        add_dummy_prefix=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return Tokenizer(model.getvalue())


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> LoadedModel:
    """Random weights; control tokens are never likely, so that answers go on until they are cut off."""
    graphdef, shapes = abstract(CONFIG)
    random = np.random.default_rng(0)
    state = jax.tree.map(lambda w: jnp.asarray(random.normal(0, 0.5, w.shape), jnp.float32), shapes)
    for control in (tokenizer.end_of_document, tokenizer.im_end):
        state["head"][...] = state["head"][...].at[:, control].set(0)
    return LoadedModel(CONFIG, graphdef, state, 0)


@pytest.fixture(scope="session")
def engine(model: LoadedModel, tokenizer: Tokenizer) -> Engine:
    return Engine(model, tokenizer, EngineConfig(rows=8))


@pytest.fixture(scope="session")
def constant(tokenizer: Tokenizer) -> Callable[[dict[int, float]], Engine]:
    """Makes a model that always gives the tokens of a table their logits, and all others -30."""

    def make(logits: dict[int, float]) -> Engine:
        graphdef, shapes = abstract(CONFIG)
        # Layers of zeros add nothing to a stream of ones, whose norm is ones: a token's logit is the sum of its column.
        state = jax.tree.map(lambda w: jnp.zeros(w.shape, jnp.float32), shapes)
        state["embedding"][...] = jnp.ones(shapes["embedding"].shape)
        state["final_norm"][...] = jnp.ones(shapes["final_norm"].shape)
        columns = np.full(CONFIG.vocab_size, -30.0)
        columns[list(logits)] = list(logits.values())
        state["head"][...] = jnp.tile(jnp.asarray(columns / CONFIG.width, jnp.float32), (CONFIG.width, 1))
        return Engine(LoadedModel(CONFIG, graphdef, state, 0), tokenizer, EngineConfig(rows=8))

    return make


@pytest.fixture(scope="session")
def all_logprobs(model: LoadedModel) -> Callable[[list[int]], np.ndarray]:
    """Log-probabilities [len(row), V] of what follows each token of a row, read at once."""
    decoder = nnx.merge(model.graphdef, model.parameters)

    @jax.jit
    def rate(row: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(decoder(row[None], jnp.arange(CONFIG.context)[None])[0] @ decoder.head[...])

    def padded(row: list[int]) -> np.ndarray:
        return np.asarray(rate(jnp.array(row + [0] * (CONFIG.context - len(row)))))[: len(row)]

    return padded


@pytest.fixture(scope="session")
def next_tokens(model: LoadedModel) -> Callable[[list[int], int], list[int]]:
    """Greedy decoding without a cache: the whole row again for each token."""
    decoder = nnx.merge(model.graphdef, model.parameters)

    @jax.jit
    def logits(row: jax.Array) -> jax.Array:
        return decoder(row[None], jnp.arange(CONFIG.context)[None])[0] @ decoder.head[...]

    def decode(prompt: list[int], count: int) -> list[int]:
        row = np.zeros(CONFIG.context, np.int32)
        row[: len(prompt)] = prompt
        for index in range(len(prompt), len(prompt) + count):
            row[index] = np.argmax(logits(row)[index - 1])
        return row[len(prompt) : len(prompt) + count].tolist()

    return decode
