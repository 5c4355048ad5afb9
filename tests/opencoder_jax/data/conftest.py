"""What the room's tests share: a small tokenizer."""

from collections import Counter
from pathlib import Path

import pytest

from opencoder_jax.beam_pipelines.tokens.train_tokenizer import TokenizerConfig, train, word_table
from opencoder_jax.tokenization.pre_split import PRE_SPLIT
from opencoder_jax.tokenization.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Trained on the room's own tests and a little of what is rarer: 700 ids, the last 11 reserved."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    text = "".join(file.read_text() for file in sources) + "é naïve 漢字漢字 → tab\there\tand\r\nthere\r\n" * 20
    config = TokenizerConfig(vocab_size=700, reserved_ids=11, minimum_count=1, character_coverage=1.0)
    return Tokenizer(train(word_table(Counter(PRE_SPLIT.findall(text))), config))
