"""MinHash signatures of source text: words, their n-grams, and rows of minima, compiled by numba.

A row of a signature is the minimum of one hash function over a document's grams, so two documents agree in it with
probability equal to the Jaccard similarity of their sets of grams. 2048 functions over every gram are what costs: so a
sketch throws each gram into one of a few bins by the top bits of one hash, and the minimum of each bin is a row
(one-permutation hashing). A row whose bin stays empty, as most do for short documents, is an ordinary minimum over all
grams by a hash function of its own, and counts as larger than any in a bin: thus the probability is exact for every
row, and a union's signature is the smaller of two, row by row.

Rows of one sketch draw grams without replacement, so a band that took all its rows from one would agree too seldom. A
band takes four rows of each of 32 sketches that have hash functions of their own: what is left is a band that agrees
less often by a share of about 192 (1-J) / grams, below 1 % from 600 grams on where J is above 0.97.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from opencoder_jax.beam_pipelines.deduplication.texts import IS_WORD, Texts

_ROWS_OF_A_SKETCH = 4  # in each band
_SIGNED_AT_ONCE = 256  # a signature of 2048 rows takes 8 kB, often as much as its document
_EMPTY = np.uint32(2**32 - 1)
_FALLBACK = np.uint32(2**31)  # the bit of a row whose bin was empty

_MIX = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_CHUNK_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_GRAM_FACTOR = np.uint64(0xC2B2AE3D27D4EB4F)
_U = np.uint64


def grams(texts: Texts | Sequence[bytes], size: int) -> tuple[np.ndarray, np.ndarray]:
    """The hashed word n-grams of some documents, in order and as often as they stand there.

    A word is a run of ASCII letters, digits, underscores and non-ASCII bytes; case counts.

    Args:
        texts: UTF-8.
        size: words a gram.

    Returns:
        hashes: uint64, the grams of the first document, then of the second, …
        offsets: int64 [documents + 1], where each document's hashes begin. One of fewer words than `size` has none.
    """
    if not isinstance(texts, Texts):
        texts = Texts.join(texts)
    return _grams(texts.data, texts.data.view(np.uint64), texts.offsets, size, IS_WORD.view(np.uint8))


def signatures(hashes: np.ndarray, offsets: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint32 [documents, bands * rows] of the hashes that `grams` returns, band after band.

    All rows of a document without grams are 2**32-1.
    """
    table = np.empty((len(offsets) - 1, bands, rows), np.uint32)
    _sign(hashes, offsets, *_functions(-(-rows // _ROWS_OF_A_SKETCH)), *_functions(bands * rows, 1), table)
    return table.reshape(-1, bands * rows)


def band_hashes(rows: np.ndarray, bands: int) -> np.ndarray:
    """uint64 [documents, bands]: one hash of each band's rows. Documents that agree in one are candidates."""
    table = np.ascontiguousarray(rows).reshape(len(rows), bands, rows.shape[1] // bands)
    return _hash_bands(table, _raw(2, table.shape[2]) | _U(1))


def document_bands(hashes: np.ndarray, offsets: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint64 [documents, bands] of what `grams` returns: `band_hashes` of their `signatures`."""
    parts = [offsets[first : first + _SIGNED_AT_ONCE + 1] for first in range(0, len(offsets) - 1, _SIGNED_AT_ONCE)]
    found = [band_hashes(signatures(hashes, part, bands, rows), bands) for part in parts]
    return np.concatenate([np.empty((0, bands), np.uint64), *found])


def _raw(stream: int, count: int) -> np.ndarray:
    """uint64 constants, part of what a signature means. Raw, as numpy promises the same values in every version."""
    return np.random.PCG64([0x0C0DE, stream]).random_raw(count)


def _functions(count: int, stream: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Factors (odd, so that the function is a permutation) and summands of hash functions on uint32."""
    raw = _raw(stream, count)
    return (raw >> _U(32)).astype(np.uint32) | np.uint32(1), raw.astype(np.uint32)


@njit(inline="always")
def _mix(value):  # type: ignore[no-untyped-def]
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    value = (value ^ (value >> _U(30))) * _MIX[0]
    value = (value ^ (value >> _U(27))) * _MIX[1]
    return value ^ (value >> _U(31))


@njit(inline="always")
def _hash_word(words, start, stop):  # type: ignore[no-untyped-def]
    """The hash of some bytes, none of which is zero, of a text that's also seen as uint64 `words`."""
    value = _U(0)
    while start < stop:
        place, shift = start >> 3, _U((start & 7) * 8)
        chunk = words[place] >> shift
        if shift:
            chunk |= words[place + 1] << (_U(64) - shift)
        if stop - start < 8:
            chunk &= (_U(1) << _U((stop - start) * 8)) - _U(1)
        value = (value ^ chunk) * _CHUNK_FACTOR
        value ^= value >> _U(32)
        start += 8
    return _mix(value)


@njit(cache=True, nogil=True)
def _grams(data, words, offsets, size, is_word):  # type: ignore[no-untyped-def]
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    edges = np.empty(longest + 2, np.int64)  # where words begin and end, in turns
    recent = np.empty(size, np.uint64)
    oldest = _U(1)
    for _ in range(size):
        oldest *= _GRAM_FACTOR
    hashes = np.empty((offsets[-1] - offsets[0] + len(offsets)) // 2 + 1, np.uint64)
    ends = np.zeros(len(offsets), np.int64)
    count = 0
    for document in range(len(offsets) - 1):
        found, before = 0, np.uint8(0)
        for place in range(offsets[document], offsets[document + 1]):
            inside = is_word[data[place]]
            edges[found] = place  # no branch, which would be mispredicted at half of the words: overwritten, or kept
            found += inside ^ before
            before = inside
        edges[found] = offsets[document + 1]
        recent[:] = 0
        gram, slot = _U(0), 0
        for word in range((found + 1) // 2):
            value = _hash_word(words, edges[2 * word], edges[2 * word + 1])
            gram = gram * _GRAM_FACTOR + value - recent[slot] * oldest
            recent[slot] = value
            slot = slot + 1 if slot + 1 < size else 0
            if word >= size - 1:
                hashes[count] = _mix(gram)
                count += 1
        ends[document + 1] = count
    return hashes[:count], ends


@njit(cache=True, nogil=True)
def _sign(hashes, offsets, factors, summands, row_factors, row_summands, table):  # type: ignore[no-untyped-def]
    documents, bands, rows = table.shape
    bits = 0
    while 1 << bits < bands * _ROWS_OF_A_SKETCH:
        bits += 1
    shift = np.uint32(32 - bits)
    bins = np.empty(1 << bits, np.uint32)  # those above bands * rows aren't used
    for document in range(documents):
        members = (hashes[offsets[document] : offsets[document + 1]] >> _U(32)).astype(np.uint32)
        for sketch in range(len(factors)):
            first = sketch * _ROWS_OF_A_SKETCH
            width = min(_ROWS_OF_A_SKETCH, rows - first)
            bins[:] = _EMPTY
            factor, summand = factors[sketch], summands[sketch]
            for member in members:
                value = np.uint32(member * factor + summand)
                place = value >> shift
                bins[place] = min(bins[place], value)  # no branch: the processor couldn't foresee it
            for band in range(bands):
                for row in range(first, first + width):
                    least = bins[band * width + row - first] >> np.uint32(1)
                    if bins[band * width + row - first] == _EMPTY:
                        factor, summand = row_factors[band * rows + row], row_summands[band * rows + row]
                        least = _EMPTY
                        for member in members:
                            least = min(least, np.uint32(member * factor + summand))
                        least = _FALLBACK | least >> np.uint32(1)
                    table[document, band, row] = least


@njit(cache=True, nogil=True)
def _hash_bands(table, factors):  # type: ignore[no-untyped-def]
    found = np.empty(table.shape[:2], np.uint64)
    for document in range(table.shape[0]):
        for band in range(table.shape[1]):
            total = _U(0)
            for row in range(table.shape[2]):
                total += _U(table[document, band, row]) * factors[row]
            found[document, band] = _mix(total)
    return found
