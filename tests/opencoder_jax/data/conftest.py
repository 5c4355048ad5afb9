"""What the room's tests share: a small tokenizer."""

from collections import Counter
from pathlib import Path

import pytest

from beam_pipelines.tokens.train_tokenizer import TokenizerConfig, train
from opencoder_jax.data.tokenizer import PRE_SPLIT, Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Trained on the room's own tests and a little of what is rarer: 700 ids, the last 11 reserved."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    text = "".join(file.read_text() for file in sources) + "é naïve 漢字漢字 → tab\there\tand\r\nthere\r\n" * 20
    config = TokenizerConfig(vocab_size=700, reserved_ids=11, minimum_count=1, character_coverage=1.0)
    return Tokenizer(train(Counter(PRE_SPLIT.findall(text)), config))
