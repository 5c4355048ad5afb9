"""MinHash signatures of source text, as plain array functions.

Text becomes words, words become 5-grams, 5-grams a set of 64-bit hashes: all by vectorised passes over the bytes of a
whole batch. rensa's exact sketch turns the sets into signatures of 2048 rows; measured against pairs of known
similarity, its rows collide with probability equal to the Jaccard similarity, so banding follows 1-(1-J^rows)^bands.
Its other sketch, `_rho`, doesn't and must not be used here.
"""

from collections.abc import Sequence

import numpy as np
import xxhash
from rensa import RMinHash

# rensa's hash family has a seed; like the version of rensa, it's part of what a signature means.
SIGNATURE_SEED = 42

_SIGNED_AT_ONCE = 256

_IS_WORD = np.zeros(256, bool)
_IS_WORD[[*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", *range(128, 256)]] = True

_BYTE_VALUES = np.random.PCG64(0x0C0DE).random_raw(256)  # raw: numpy promises the same values in every version
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
_GRAM_BASE = np.uint64(0xC2B2AE3D27D4EB4F)


def shingles(texts: Sequence[bytes], size: int) -> tuple[np.ndarray, np.ndarray]:
    """The sets of hashed word n-grams of some documents.

    A word is a run of ASCII letters, digits, underscores and non-ASCII bytes; case counts.

    Args:
        texts: UTF-8.
        size: words a gram.

    Returns:
        hashes: uint64, the distinct grams of the first document, then of the second, …
        offsets: int64 [documents + 1], where each document's hashes begin. One of fewer words than `size` has none.
    """
    joined = np.frombuffer(b"\n".join([*texts, b""]), np.uint8)
    document_ends = np.cumsum([len(text) + 1 for text in texts])
    words, begins = _hash_words(joined)
    if len(words) < size:
        return np.empty(0, np.uint64), np.zeros(len(texts) + 1, np.int64)
    grams = np.zeros(len(words) - size + 1, np.uint64)
    for place in range(size):
        grams = grams * _GRAM_BASE + words[place : place + len(grams)]
    grams = _mix(grams)
    owner = np.searchsorted(document_ends, begins, side="right")
    whole = owner[: len(grams)] == owner[size - 1 :]
    grams, owner = grams[whole], owner[: len(grams)][whole]
    order = np.lexsort((grams, owner))
    grams, owner = grams[order], owner[order]
    fresh = np.ones(len(grams), bool)
    fresh[1:] = (grams[1:] != grams[:-1]) | (owner[1:] != owner[:-1])
    offsets = np.searchsorted(owner[fresh], np.arange(len(texts) + 1))
    return grams[fresh], offsets.astype(np.int64)


def signatures(hashes: np.ndarray, offsets: np.ndarray, permutations: int) -> np.ndarray:
    """uint32 [documents, permutations] of the sets that `shingles` returns."""
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, offsets.astype(np.uint64), permutations, SIGNATURE_SEED
    )
    return np.array(matrix.to_rows(), np.uint32).reshape(len(offsets) - 1, permutations)


def band_hashes(rows: np.ndarray, bands: int) -> np.ndarray:
    """uint64 [documents, bands]: one hash of each band's rows. Documents that agree in one are candidates."""
    parts = np.ascontiguousarray(rows, "<u4").reshape(len(rows), bands, rows.shape[1] // bands)
    hashed = [xxhash.xxh3_64_intdigest(band.tobytes()) for document in parts for band in document]
    return np.array(hashed, np.uint64).reshape(len(rows), bands)


def document_bands(hashes: np.ndarray, offsets: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint64 [documents, bands] of the sets that `shingles` returns: `band_hashes` of their `signatures`.

    Signatures are made of some hundred documents at a time. One of 2048 rows takes 8 kB, and ten times that on its way
    from rensa, which hands over lists of Python's integers.
    """
    documents = len(offsets) - 1
    found = [np.empty((0, bands), np.uint64)]
    for first in range(0, documents, _SIGNED_AT_ONCE):
        part = offsets[first : first + _SIGNED_AT_ONCE + 1]
        found.append(band_hashes(signatures(hashes[part[0] : part[-1]], part - part[0], bands * rows), bands))
    return np.concatenate(found)


def _hash_words(joined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all words, and where each begins: polynomials of their bytes, by differences of one prefix sum."""
    inside = _IS_WORD[joined]
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    if inside[:1].any():
        edges = np.concatenate([[0], edges])
    begins, ends = edges[0::2], edges[1::2]
    powers = _powers(_BASE, len(joined) + 1)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_BYTE_VALUES[joined] * powers[:-1], dtype=np.uint64)])
    return _mix((sums[ends] - sums[begins]) * _powers(_INVERSE, len(joined) + 1)[begins]), begins


def _powers(base: np.uint64, count: int) -> np.ndarray:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
