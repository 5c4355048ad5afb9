"""MinHash signatures of source text, as plain array functions.

Text becomes words, words become 5-grams, 5-grams 64-bit hashes: all by vectorised passes over the bytes of many
documents at once. rensa's exact sketch turns the sets into rows: minima, which two sets share with probability equal to
their Jaccard similarity. Rows of one sketch are a little too even, though: they draw members almost without
replacement. Bands of one sketch of 2048 rows agree 2 to 5 % too seldom, and the candidates of 16 bands miss
1-(1-J^rows)^bands by up to 0.01. So each band takes four rows of each of 32 sketches that have seeds of their own,
which is as fast, and on the formula. Rensa's other sketch, `_rho`, isn't and must not be used here.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import xxhash
from rensa import RMinHash

# The first sketch's seed; like the version of rensa, it's part of what a signature means.
SIGNATURE_SEED = 42

_SIGNED_AT_ONCE = 256
_ROWS_OF_A_SKETCH = 4  # in each band
_PIECE = 1 << 17  # bytes of text that are hashed at once

IS_WORD = np.zeros(256, bool)
IS_WORD[[*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", *range(128, 256)]] = True

_BYTE_VALUES = np.random.PCG64(0x0C0DE).random_raw(256)  # raw: numpy promises the same values in every version
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
_GRAM_BASE = np.uint64(0xC2B2AE3D27D4EB4F)


def grams(texts: Sequence[bytes], size: int) -> tuple[np.ndarray, np.ndarray]:
    """The hashed word n-grams of some documents, in order and as often as they stand there.

    A word is a run of ASCII letters, digits, underscores and non-ASCII bytes; case counts. Documents are hashed some
    hundred kilobytes at a time, so that the dozen passes over them stay in the processor's cache.

    Args:
        texts: UTF-8.
        size: words a gram.

    Returns:
        hashes: uint64, the grams of the first document, then of the second, …
        offsets: int64 [documents + 1], where each document's hashes begin. One of fewer words than `size` has none.
    """
    found = [np.empty(0, np.uint64)]
    counts = [np.zeros(1, np.int64)]
    sizes = np.array([len(text) + 1 for text in texts], np.int64)
    pieces = np.cumsum(sizes) // _PIECE
    cuts = np.flatnonzero(np.diff(pieces)) + 1
    for first, stop in pairwise([0, *cuts.tolist(), len(texts)]):
        hashes, count = _hash_grams(b"\n".join([*texts[first:stop], b""]), np.cumsum(sizes[first:stop]), size)
        found.append(hashes)
        counts.append(count)
    return np.concatenate(found), np.cumsum(np.concatenate(counts))


def shingles(texts: Sequence[bytes], size: int) -> tuple[np.ndarray, np.ndarray]:
    """`grams` as sets: each document's distinct hashes in order. Their signatures are the same."""
    hashes, offsets = grams(texts, size)
    sets = [np.unique(hashes[start:stop]) for start, stop in pairwise(offsets.tolist())]
    return np.concatenate([np.empty(0, np.uint64), *sets]), np.cumsum([0, *map(len, sets)])


def signatures(hashes: np.ndarray, offsets: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint32 [documents, bands * rows] of the hashes that `grams` or `shingles` returns, band after band."""
    documents = len(offsets) - 1
    table = np.empty((documents, bands, rows), np.uint32)
    bounds = offsets.astype(np.uint64)
    for first in range(0, rows, _ROWS_OF_A_SKETCH):
        part = table[:, :, first : first + _ROWS_OF_A_SKETCH]
        sketch = RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, bounds, bands * part.shape[2], SIGNATURE_SEED + first // _ROWS_OF_A_SKETCH
        )
        part[:] = np.array(sketch.to_rows(), np.uint32).reshape(documents, part.shape[2], bands).transpose(0, 2, 1)
    return table.reshape(documents, bands * rows)


def band_hashes(rows: np.ndarray, bands: int) -> np.ndarray:
    """uint64 [documents, bands]: one hash of each band's rows. Documents that agree in one are candidates."""
    parts = np.ascontiguousarray(rows, "<u4").reshape(len(rows), bands, rows.shape[1] // bands)
    hashed = [xxhash.xxh3_64_intdigest(band.tobytes()) for document in parts for band in document]
    return np.array(hashed, np.uint64).reshape(len(rows), bands)


def document_bands(hashes: np.ndarray, offsets: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint64 [documents, bands] of what `grams` or `shingles` returns: `band_hashes` of their `signatures`.

    Signatures are made of some hundred documents at a time. One of 2048 rows takes 8 kB, and ten times that on its way
    from rensa, which hands over lists of Python's integers.
    """
    documents = len(offsets) - 1
    found = [np.empty((0, bands), np.uint64)]
    for first in range(0, documents, _SIGNED_AT_ONCE):
        part = offsets[first : first + _SIGNED_AT_ONCE + 1]
        found.append(band_hashes(signatures(hashes[part[0] : part[-1]], part - part[0], bands, rows), bands))
    return np.concatenate(found)


def _hash_grams(joined: bytes, document_ends: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all grams of documents that lie end to end, and how many each document has."""
    words, begins = _hash_words(np.frombuffer(joined, np.uint8))
    last = np.searchsorted(begins, document_ends)  # each document's words end here
    counts = np.maximum(np.diff(last, prepend=0) - (size - 1), 0)
    if len(words) < size:
        return np.empty(0, np.uint64), counts
    hashes = words[: len(words) - size + 1].copy()
    for place in range(1, size):
        hashes *= _GRAM_BASE
        hashes += words[place : place + len(hashes)]
    whole = np.ones(len(words), bool)
    for place in range(1, size):  # a gram that begins so near to a document's end reaches into the next one
        whole[np.maximum(last - place, 0)[last > 0]] = False
    return _mix(hashes[whole[: len(hashes)]]), counts


def _hash_words(joined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all words, and where each begins: polynomials of their bytes, by differences of one prefix sum."""
    inside = np.zeros(len(joined) + 1, bool)  # the text ends in a line feed, so words end before it does
    np.take(IS_WORD, joined, out=inside[1:])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    begins, ends = edges[0::2], edges[1::2]
    powers, inverses = _POWERS, _INVERSES
    if len(joined) >= len(powers):
        powers, inverses = _powers(_BASE, len(joined) + 1), _powers(_INVERSE, len(joined) + 1)
    sums = np.zeros(len(joined) + 1, np.uint64)
    np.take(_BYTE_VALUES, joined, out=sums[1:])
    sums[1:] *= powers[: len(joined)]
    np.cumsum(sums, out=sums)
    return _mix((sums[ends] - sums[begins]) * inverses[begins]), begins


def _powers(base: np.uint64, count: int) -> np.ndarray:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_POWERS, _INVERSES = _powers(_BASE, 2 * _PIECE), _powers(_INVERSE, 2 * _PIECE)
