"""Words of a document and the n-grams of them that repeat; lines and bytes counted: loops that numba compiles.

A document is a few thousand words, for which an array library spends more on its calls than on the words. Words and
n-grams are compared as 64-bit hashes. The compiled code is kept beside the source, so only the first run compiles it.
"""

import string
from typing import NamedTuple

import numpy as np
from numba import njit

_ALNUM = string.ascii_letters + string.digits
# What a byte of UTF-8 counts as in a word: 0 ends it. Letters and digits in lower case, and all that isn't ASCII.
LETTERS_AND_DIGITS = np.arange(256, dtype=np.uint8)
LETTERS_AND_DIGITS[:128] = 0
LETTERS_AND_DIGITS[[*_ALNUM.encode()]] = [*_ALNUM.lower().encode()]
# Words are what stands between blanks.
BLANKS = np.arange(256, dtype=np.uint8)
BLANKS[ord(" ")] = 0

_BASE64 = np.isin(np.arange(256), [*_ALNUM.encode(), *b"+/"])
_LONGEST = 10
_TOP = (2, 3, 4)

_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)


class Words(NamedTuple):
    """The words of a document.

    Attributes:
        number: of all words.
        chars: their characters.
        counts: int64 [different words], how often each occurs, in the order of their first places.
        top: by n: the characters of all copies of the most frequent n-gram, by `chars`; 0 if it occurs once. Of several
            most frequent ones the first in the text counts. For n from 2 to 4.
        duplicate: by n: characters of the words in any n-gram that occurs twice or more (overlaps once), by `chars`.
            For n from 2 to 10.
    """

    number: int
    chars: int
    counts: np.ndarray
    top: dict[int, float]
    duplicate: dict[int, float]


def measure_words(text: bytes, folding: np.ndarray) -> Words:
    """The words of a text in UTF-8.

    Args:
        text: UTF-8.
        folding: uint8 [256], what each byte counts as; 0 where it stands between words.
    """
    hashes, ends = _hash_words(np.frombuffer(text, np.uint8), folding)
    counts, top, covered = _repeated(hashes, ends)
    chars = int(ends[-1])
    shares = covered / max(1, chars)
    return Words(
        len(hashes),
        chars,
        counts,
        {length: float(top[length]) / max(1, chars) for length in _TOP},
        {length: float(shares[length]) for length in range(2, _LONGEST + 1)},
    )


@njit(cache=True, nogil=True)
def count_bytes(text: np.ndarray) -> tuple[np.ndarray, int, int]:
    """What UTF-8 is made of.

    Returns:
        counts: int64 [256], how often each byte occurs.
        line: characters of the longest line, with its line break.
        run: bytes of the longest run of base64's letters, digits, + and /.
    """
    counts = np.zeros(256, np.int64)
    longest_line, line, longest_run, run = 0, 0, 0, 0
    for byte in text:
        counts[byte] += 1
        line += (byte & 0xC0) != 0x80
        run = run + 1 if _BASE64[byte] else 0
        longest_run = max(longest_run, run)
        if byte == 10:
            longest_line = max(longest_line, line)
            line = 0
    return counts, max(longest_line, line), longest_run


@njit(cache=True, nogil=True)
def _mix(value: np.uint64) -> np.uint64:
    """The finaliser of splitmix64: spreads neighbouring numbers over 64 bits."""
    value += np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def _hash_words(text: np.ndarray, folding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the words, uint64 [words], and the words' characters before each one's end, int64 [words + 1]."""
    hashes = np.empty(len(text) // 2 + 1, np.uint64)
    ends = np.zeros(len(text) // 2 + 2, np.int64)
    words, chars, value, inside = 0, 0, _FNV_OFFSET, False
    for byte in text:
        sign = folding[byte]
        if sign:
            value = (value ^ np.uint64(sign)) * _FNV_PRIME
            chars += (sign & 0xC0) != 0x80  # the first byte of a character
            inside = True
        elif inside:
            hashes[words] = _mix(value)
            words += 1
            ends[words] = chars
            value, inside = _FNV_OFFSET, False
    if inside:
        hashes[words] = _mix(value)
        words += 1
        ends[words] = chars
    return hashes[:words], ends[: words + 1]


@njit(cache=True, nogil=True)
def _repeated(hashes: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts n-grams in a hash table, for n from 1 to 10.

    An n-gram can only occur twice if its first n - 1 words do, so each length looks at the survivors of the one before:
    most of a document drops out at n = 2 or 3.

    Returns:
        counts: int64 [different words], how often each word occurs.
        top: int64 [n], characters of all copies of the most frequent n-gram; 0 if it occurs once.
        covered: int64 [n], characters of the words in n-grams that occur twice or more.
    """
    words = len(hashes)
    top, covered = np.zeros(_LONGEST + 1, np.int64), np.zeros(_LONGEST + 1, np.int64)
    counts = np.zeros(0, np.int64)
    size = 16
    while size < 2 * words:
        size *= 2
    keys, number = np.empty(size, np.uint64), np.zeros(size, np.int64)
    first, slots = np.arange(words), np.empty(words, np.int64)  # of each survivor: its place in the text, in the table
    grams = hashes.copy()
    new = np.empty(words, np.int64)  # the survivors that are the first of their kind
    left = words
    for length in range(1, _LONGEST + 1):
        while left and first[left - 1] + length > words:
            left -= 1
        if not left:
            break
        while size > 16 and size >= 4 * left:
            size //= 2
        number[:size] = 0
        mask = np.uint64(size - 1)
        different = 0
        for i in range(left):
            if length > 1:  # the order of words matters
                grams[i] = _mix(np.uint64(3) * grams[i] + hashes[first[i] + length - 1])
            slot = grams[i] & mask
            while number[slot] and keys[slot] != grams[i]:
                slot = (slot + np.uint64(1)) & mask
            if not number[slot]:
                keys[slot] = grams[i]
                new[different] = i
                different += 1
            number[slot] += 1
            slots[i] = slot
        most, leader = 1, 0
        for i in new[:different]:
            if number[slots[i]] > most:
                most, leader = number[slots[i]], i
        if most > 1:
            top[length] = (ends[first[leader] + length] - ends[first[leader]]) * most
        if length == 1:
            counts = number[slots[new[:different]]]
        survivors, reached = 0, 0
        for i in range(left):
            if number[slots[i]] > 1:
                stop = first[i] + length
                covered[length] += ends[stop] - ends[max(first[i], reached)]
                reached = stop
                first[survivors], grams[survivors] = first[i], grams[i]
                survivors += 1
        left = survivors
    return counts, top, covered
