"""MinHash: shingles as a plain regular expression finds them, and candidates as often as theory says."""

import random
import re
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shingle_sets import shingles

from opencoder_jax.beam_pipelines.deduplication import minhash
from opencoder_jax.beam_pipelines.deduplication.minhash import band_hashes, document_bands, grams, signatures

WORD = re.compile(rb"[A-Za-z0-9_\x80-\xff]+")

# Few different words, so that grams repeat within and across documents, and every kind of border between them.
TEXTS = st.lists(
    st.lists(
        st.sampled_from(["a", "b", "A", "_1", "größe", "中文", "\n", " ", "\0", "=(", "é", "😀\t"]), max_size=25
    ).map("".join)
    | st.text(max_size=20),
    max_size=6,
).map(lambda texts: [text.encode() for text in texts])


def word_grams(text: bytes, size: int) -> set[tuple[bytes, ...]]:
    words = WORD.findall(text)
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


@given(TEXTS, st.integers(1, 5))
def test_shingles_are_the_sets_of_word_grams(texts: list[bytes], size: int) -> None:
    hashes, offsets = shingles(texts, size)
    found = [hashes[start:stop].tolist() for start, stop in pairwise(offsets)]
    expected = [word_grams(text, size) for text in texts]

    # A gram's hash is that of a document that is this gram alone: wherever it stands, whatever surrounds it.
    every = sorted(set().union(*expected))
    alone, ends = shingles([b" ".join(gram) for gram in every], size)
    assert ends.tolist() == list(range(len(every) + 1))
    hash_of = dict(zip(every, alone.tolist(), strict=True))
    assert len(set(hash_of.values())) == len(every)
    assert found == [sorted(hash_of[gram] for gram in document) for document in expected]


@given(TEXTS, st.integers(1, 5))
def test_repeated_grams_in_any_order_have_the_signature_of_their_set(texts: list[bytes], size: int) -> None:
    hashes, offsets = grams(texts, size)
    assert np.diff(offsets).tolist() == [max(0, len(WORD.findall(text)) - size + 1) for text in texts]
    assert (signatures(hashes, offsets, 4, 6) == signatures(*shingles(texts, size), 4, 6)).all()


@given(TEXTS)
def test_the_signature_of_a_union_is_the_smaller_of_two_row_by_row(texts: list[bytes]) -> None:
    """What repositories are signed by."""
    hashes, offsets = grams(texts, 1)
    some = np.flatnonzero(np.diff(offsets))
    if len(some):
        apart = signatures(hashes, np.append(offsets[some], offsets[-1]), 3, 5)
        whole = signatures(hashes, np.array([0, len(hashes)]), 3, 5)
        assert (apart.min(axis=0) == whole[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("members", "changed"), [(200, 2), (1000, 5), (1000, 15), (5000, 25), (5000, 75)])
def test_bands_agree_as_often_as_independent_rows_would(members: int, changed: int) -> None:
    """Fresh random sets of exact similarity J: a band agrees with probability J^128, any with 1-(1-J^128)^16."""
    pairs, chance = 5000, np.random.default_rng(members + changed)
    agreeing, any_agrees = 0, 0
    for _ in range(pairs // 100):
        one = chance.integers(0, 2**64, (100, members), np.uint64)
        other = one.copy()
        other[:, :changed] = chance.integers(0, 2**64, (100, changed), np.uint64)
        hashes = np.stack([one, other], axis=1).reshape(-1)
        bands = document_bands(hashes, np.arange(0, len(hashes) + 1, members), 16, 128)
        equal = bands[0::2] == bands[1::2]
        agreeing += equal.sum()
        any_agrees += equal.any(axis=1).sum()
    band = ((members - changed) / (members + changed)) ** 128
    candidate = 1 - (1 - band) ** 16
    assert abs(agreeing / pairs / 16 - band) < 4 * np.sqrt(band * (1 - band) / pairs / 16)
    assert abs(any_agrees / pairs - candidate) < 4 * np.sqrt(candidate * (1 - candidate) / pairs)


def signature_by_the_book(members: list[int], bands: int, rows: int) -> list[int]:
    """One document's signature, in Python's integers: what the compiled code claims to be."""

    def functions(stream: int, count: int) -> list[tuple[int, int]]:
        raw = np.random.PCG64([0x0C0DE, stream]).random_raw(count).tolist()
        return [(value >> 32 | 1, value % 2**32) for value in raw]

    ordinary = functions(1, bands * rows)
    sketches = functions(0, -(-rows // 4))
    shift = 32 - (4 * bands - 1).bit_length()
    found = []
    for band in range(bands):
        for row in range(rows):
            factor, summand = sketches[row // 4]
            width = min(4, rows - row // 4 * 4)
            values = [(member * factor + summand) % 2**32 for member in members]
            thrown = [value for value in values if value >> shift == band * width + row % 4]
            factor, summand = ordinary[band * rows + row]
            others = [2**32 - 1, *((member * factor + summand) % 2**32 for member in members)]
            found.append(min(thrown) >> 1 if thrown else 2**31 | min(others) >> 1)
    return found


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(1, 4), st.integers(1, 9))
def test_a_signature_is_the_one_by_the_book(hashes: list[int], bands: int, rows: int) -> None:
    found = signatures(np.array(hashes, np.uint64), np.array([0, len(hashes)]), bands, rows)
    assert found.tolist() == [signature_by_the_book([value >> 32 for value in hashes], bands, rows)]


@pytest.mark.parametrize(("members", "changed"), [(3, 1), (20, 1), (20, 4), (100, 5)])
def test_short_documents_agree_as_often_as_long_ones(members: int, changed: int) -> None:
    """Most of their bins are empty, and the rows in their place must be draws of their own: J^rows a band."""
    pairs, chance = 2000, np.random.default_rng(members)
    sets = chance.integers(0, 2**64, (pairs, 2, members), np.uint64)
    sets[:, 1, changed:] = sets[:, 0, changed:]
    bands = document_bands(sets.reshape(-1), np.arange(0, sets.size + 1, members), 1, 128)
    few = document_bands(sets.reshape(-1), np.arange(0, sets.size + 1, members), 1, 8)
    similar = (members - changed) / (members + changed)
    for found, rows in ((bands, 128), (few, 8)):
        expected = similar**rows
        agree = (found[0::2] == found[1::2]).mean()
        assert abs(agree - expected) < 4 * np.sqrt(expected * (1 - expected) / pairs) + 1e-9


def test_documents_do_not_run_into_each_other() -> None:
    hashes, offsets = shingles([b"a b", b"c d", b"", b"a b c"], 3)
    assert offsets.tolist() == [0, 0, 0, 0, 1]
    assert len(hashes) == 1
    joined, _ = shingles([b"ab", b"cd"], 1)
    assert set(joined.tolist()).isdisjoint(shingles([b"abcd"], 1)[0].tolist())


@pytest.mark.parametrize("texts", [[], [b""], [b"", b"\n\n"], [b"only four words here"]])
def test_too_few_words_make_no_shingles(texts: list[bytes]) -> None:
    hashes, offsets = shingles(texts, 5)
    assert len(hashes) == 0
    assert offsets.tolist() == [0] * (len(texts) + 1)
    assert document_bands(hashes, offsets, 2, 3).shape == (len(texts), 2)


def test_the_scheme_is_what_it_was() -> None:
    """Signatures of two runs can only be compared while it stays: another numba or numpy must not change it.

    The numbers are what these expressions gave with numba 0.68 and numpy 2.4.
    """
    hashes, offsets = shingles([b"def add(a, b): return a + b", "größe = 中 + 1 if x else 2".encode()], 5)
    assert np.bitwise_xor.reduce(hashes) == 13835524417486568815
    assert np.bitwise_xor.reduce(document_bands(hashes, offsets, 16, 128), axis=None) == 8056025880459948410


def test_bands_do_not_depend_on_how_documents_are_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [b" ".join(b"w%d" % (number * 7 + word) for word in range(number)) for number in range(12)]
    hashes, offsets = shingles(texts, 5)
    whole = band_hashes(signatures(hashes, offsets, 3, 4), 3)
    for at_once in (1, 5, 12):
        monkeypatch.setattr(minhash, "_SIGNED_AT_ONCE", at_once)
        assert (document_bands(hashes, offsets, 3, 4) == whole).all()


def pair(chance: random.Random, replaced: int, grams_each: int = 1000) -> tuple[bytes, bytes, float]:
    """Two texts of unique words; each replaced word, far from the others, changes five 5-grams. And their Jaccard."""
    words = [f"{chance.getrandbits(64):x}" for _ in range(grams_each + 4)]
    other = list(words)
    for place in range(replaced):
        other[10 + 20 * place] = f"{chance.getrandbits(64):x}"
    shared = grams_each - 5 * replaced
    return " ".join(words).encode(), " ".join(other).encode(), shared / (2 * grams_each - shared)


@pytest.mark.parametrize(("replaced", "jaccard"), [(5, 0.95), (2, 0.98), (1, 0.99)])
def test_pairs_become_candidates_as_often_as_theory_says(replaced: int, jaccard: float) -> None:
    """The rows of a signature agree with probability J; the claim of near_duplicates.py, in sampling error."""
    pairs = 200
    chance = random.Random(replaced)
    texts, similarities = [], set()
    for _ in range(pairs):
        one, other, similarity = pair(chance, replaced)
        texts += [one, other]
        similarities.add(similarity)
    (similarity,) = similarities
    assert similarity == pytest.approx(jaccard, abs=0.002)

    hashes, offsets = shingles(texts, 5)
    assert np.diff(offsets).tolist() == [1000] * len(texts)
    rows = signatures(hashes, offsets, 16, 128)
    agreeing = (rows[0::2] == rows[1::2]).mean()
    # The rows of a pair aren't quite independent draws, pairs are: the error is at most that of one draw a pair.
    assert abs(agreeing - similarity) < 4 * np.sqrt(similarity * (1 - similarity) / pairs)
    bands = band_hashes(rows, 16)
    candidates = (bands[0::2] == bands[1::2]).any(axis=1).mean()
    expected = 1 - (1 - similarity**128) ** 16
    assert abs(candidates - expected) < 4 * np.sqrt(expected * (1 - expected) / pairs)


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=6, max_size=6), max_size=6))
def test_equal_bands_and_only_they_have_equal_hashes(rows: list[list[int]]) -> None:
    table = np.array(rows, np.uint32).reshape(-1, 6)
    hashes = band_hashes(table, 3)
    bands = [[tuple(row[place : place + 2]) for place in (0, 2, 4)] for row in rows]
    assert hashes.shape == (len(rows), 3)
    pairs = set(zip(chain(*bands), chain(*hashes.tolist()), strict=True))
    assert len(pairs) == len({band for band, _ in pairs}) == len({hash_ for _, hash_ in pairs})
