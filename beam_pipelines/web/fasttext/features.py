"""Texts as rows of fastText's input matrix: their tokens, and hashed n-grams of tokens.

The words of our models are the tokens of a byte-pair encoding (a Tokenizer), as the paper has it (section 2.1.2): the
vocabulary is bounded, and Chinese needs no segmentation. A token is spelt in characters that are no white space, one a
byte, so that the words of a text, joined by spaces, are a line that any fastText reads.
"""

from collections.abc import Sequence

import numba
import numpy as np

from opencoder_jax.beam_pipelines.web.fasttext.fasttext_file import END_OF_LINE
from opencoder_jax.tokenization.tokenizer import Tokenizer

_FNV_START, _FNV_PRIME = 2_166_136_261, 16_777_619
_NGRAM_PRIME = 116_049_371  # Dictionary::addWordNgrams
LONGEST = 4_096  # tokens of a text that are looked at

# Each byte as a visible character: itself where it is one, else one from beyond Latin-1.
_VISIBLE = {
    byte: chr(byte if 33 <= byte <= 126 or (161 <= byte <= 255 and byte != 173) else 256 + byte) for byte in range(256)
}


def spelling(tokenizer: Tokenizer) -> list[str]:
    """The word of each token; the end of line comes last. Control tokens, which no text has, are words all the same."""
    words = []
    for token in range(tokenizer.vocab_size):
        word = "".join(_VISIBLE[byte] for byte in tokenizer.decode_bytes([token]))
        words.append(word or f"<{token}>")
    return [*_distinct(words), END_OF_LINE]


def _distinct(words: Sequence[str]) -> list[str]:
    """The pieces of single bytes may be spelt like other tokens: they get a mark."""
    seen: set[str] = set()
    found = []
    for number, word in enumerate(words):
        found.append(f"<{number}>" if word in seen else word)
        seen.add(found[-1])
    return found


def word_hash(word: str) -> int:
    """FastText's hash of a word: FNV-1a over its bytes as signed ones, 32 bits."""
    value = _FNV_START
    for byte in word.encode():
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * _FNV_PRIME) & 0xFFFFFFFF
    return value


def word_hashes(words: Sequence[str]) -> np.ndarray:
    """The hashes as fastText keeps them, signed and widened: uint64 [words]."""
    found = np.array([word_hash(word) for word in words], np.uint32)
    return found.astype(np.int32).astype(np.int64).astype(np.uint64)


@numba.njit(cache=True, nogil=True)
def rows_of(tokens: np.ndarray, hashes: np.ndarray, ngrams: int, buckets: int) -> np.ndarray:
    """The rows of a text, int32 [n]: its words and the end of line, then the n-grams of two to `ngrams` words.

    Args:
        tokens: int32, at most LONGEST of them count.
        hashes: of all words, the end of line last.
    """
    length = min(len(tokens), LONGEST) + 1
    words = len(hashes)
    line = np.empty(length, np.int32)
    line[: length - 1] = tokens[: length - 1]
    line[length - 1] = words - 1
    total = length
    for size in range(2, ngrams + 1):
        total += max(0, length - size + 1)
    rows = np.empty(total, np.int32)
    rows[:length] = line
    place = length
    for first in range(length):
        value = hashes[line[first]]
        for last in range(first + 1, min(length, first + ngrams)):
            value = value * np.uint64(_NGRAM_PRIME) + hashes[line[last]]
            rows[place] = words + np.int32(value % np.uint64(buckets))
            place += 1
    return rows
