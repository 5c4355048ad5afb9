"""What the room's tests share: tiny token records, and programs that are compiled once."""

import io
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
import sentencepiece

from opencoder_jax.data.token_records import TokenRecords, write_records
from tests.opencoder_jax.training.small_run import VOCABULARY, write_teacher
from tests.quick import QUICK


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly_and_once(compiled: Path) -> Iterator[None]:
    """Tests spend their time on compiling, and many train the same program; so do the processes that they start."""
    options = {
        "jax_compilation_cache_dir": str(compiled),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: jax.config.values[name] for name in options}
    with pytest.MonkeyPatch.context() as patch:
        for name, flag in QUICK.items():
            patch.setenv(name, flag)
        for name, value in options.items():
            patch.setenv(name.upper(), str(value))
            jax.config.update(name, value)
        yield
    for name, value in before.items():
        jax.config.update(name, value)


def make_tokenizer_model() -> bytes:
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
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def tokenizer_model() -> bytes:
    return make_tokenizer_model()


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
        write_records(directory / name, [records[::2], records[1::2]], tokenizer_model, 2**31)
    write_teacher(directory / "refinecode_teacher", TokenRecords.open(directory / "refinecode"))
    return directory
