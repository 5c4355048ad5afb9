"""`grams` as sets, by which tests and benchmarks know the exact similarity of two texts."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from opencoder_jax.beam_pipelines.deduplication.minhash import grams


def shingles(texts: Sequence[bytes], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Each document's distinct hashes in order, and where each document's begin. Their signatures are the same."""
    hashes, offsets = grams(texts, size)
    sets = [np.unique(hashes[start:stop]) for start, stop in pairwise(offsets.tolist())]
    return np.concatenate([np.empty(0, np.uint64), *sets]), np.cumsum([0, *map(len, sets)])
