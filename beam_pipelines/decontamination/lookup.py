"""Which of very many hashes are among some that we look for."""

import numpy as np


class Lookup:
    """A set of 64-bit hashes.

    A table of bits, indexed by the highest bits of a hash, turns nearly all others away with one access; binary search
    settles the rest.
    """

    def __init__(self, keys: np.ndarray) -> None:
        """`keys`: uint64, sorted and distinct."""
        self.keys = keys
        bits = max(16, min(26, len(keys).bit_length() + 5))
        self._shift = np.uint64(64 - bits)
        self._seen = np.zeros(1 << bits, bool)
        self._seen[keys >> self._shift] = True

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The indices of those hashes that are in the set, int64 in order, and which key each is."""
        if not len(self.keys):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        indices = np.flatnonzero(self._seen[hashes >> self._shift])
        found = hashes[indices]
        which = np.minimum(np.searchsorted(self.keys, found), len(self.keys) - 1)
        same = self.keys[which] == found
        return indices[same], which[same]
