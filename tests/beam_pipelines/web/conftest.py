"""What the tests of web recall share: a small tokenizer and pages of two kinds."""

import random
from collections import Counter

import pytest

from opencoder_jax.beam_pipelines.tokens.train_tokenizer import TokenizerConfig, train, word_table
from opencoder_jax.tokenization.pre_split import PRE_SPLIT
from opencoder_jax.tokenization.tokenizer import Tokenizer

# fmt: off
CODE = (
    "def", "class", "return", "import", "self", "print", "for", "range", "len", "list", "dict", "None", "True",
    "function", "array", "loop", "index",
)
# fmt: on
# fmt: off
PROSE = (
    "the", "garden", "was", "green", "and", "old", "roses", "stood", "by", "a", "quiet", "wall", "where", "birds",
    "sang", "every", "morning", "of", "spring",
)
# fmt: on


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    config = TokenizerConfig(vocab_size=420, reserved_ids=2, minimum_count=1, character_coverage=1.0)
    return Tokenizer(train(word_table(Counter(PRE_SPLIT.findall(" ".join((*CODE, *PROSE)) * 3))), config))


@pytest.fixture(scope="session")
def pages() -> tuple[list[str], list[bool]]:
    """300 pages, every other one about code; each has words of the other kind, too."""
    rng = random.Random(1)
    texts, wanted = [], []
    for number in range(300):
        mine, other = (CODE, PROSE) if number % 2 else (PROSE, CODE)
        words = rng.choices(mine, k=rng.randint(20, 60)) + rng.choices(other, k=rng.randint(0, 12))
        rng.shuffle(words)
        texts.append(" ".join(words))
        wanted.append(bool(number % 2))
    return texts, wanted
