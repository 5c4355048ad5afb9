"""In which order things come: a permutation and a deal that are arithmetic, so that any place of them is found at once.

Neither needs memory that grows with what it orders, nor anything before the place that is asked for.
"""

import hashlib

import numpy as np

# Rows after which the pattern of a mixture repeats; a share is exact to 1 / PERIOD.
PERIOD = 1 << 18


def permuted(ordinals: np.ndarray, size: int, key: str) -> np.ndarray:
    """The places of ordinals in a permutation of 0 .. size - 1 that looks random and is a function of the key.

    A Feistel network (Luby and Rackoff 1988): it permutes the numbers of a power of two, whatever the function of its
    rounds; here SplitMix64's (Steele et al. 2014). A result outside the range goes through again until it's inside,
    which keeps it a permutation. (Multiplying and adding, the cheap alternative, leaves lattices in the order.)

    Args:
        ordinals: int64 [n], each in 0 .. size - 1.

    Returns:
        int64 [n].
    """
    if size == 1:
        return np.zeros(len(ordinals), np.int64)
    # A network of fewer bits has too few different permutations to look random.
    bits = max(6, (size - 1).bit_length())
    low = bits // 2
    high = bits - low
    keys = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=64).digest(), "<u8")
    values = ordinals.astype(np.uint64)
    outside = np.arange(len(values))
    while len(outside):
        inside = values[outside]
        left, right = inside >> np.uint64(low), inside & np.uint64((1 << low) - 1)
        for pair in range(0, 8, 2):
            left ^= _mixed(right + keys[pair]) >> np.uint64(64 - high)
            right ^= _mixed(left + keys[pair + 1]) >> np.uint64(64 - low)
        values[outside] = left << np.uint64(low) | right
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def _mixed(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Deal:
    """Deals rows to the sources of a mixture by weight, each source's rows as evenly spread as they can be.

    In any stretch of rows, wherever it begins, a source has its share of them but for a row or two.

    Attributes:
        pattern: the source of each row of a period, int16 [PERIOD].
        shares: rows of each source in a period, int64 [sources].
    """

    def __init__(self, weights: list[float]) -> None:
        """`weights` need not sum to one; a source gets at least one row of a period."""
        ideal = np.array(weights) / sum(weights) * PERIOD
        shares = np.maximum(1, np.floor(ideal).astype(np.int64))
        # The largest remainders take what rounding down left; what tiny sources got by rounding up, the largest gives.
        for source in np.argsort(shares - ideal, kind="stable")[: max(0, PERIOD - shares.sum())]:
            shares[source] += 1
        shares[np.argmax(shares)] += PERIOD - shares.sum()
        times = np.concatenate([(np.arange(count) + 0.5) / count for count in shares])
        sources = np.repeat(np.arange(len(shares), dtype=np.int16), shares)
        self.shares = shares
        self.pattern = sources[np.argsort(times, kind="stable")]
        self._slots = [np.flatnonzero(self.pattern == source) for source in range(len(shares))]

    def sources(self, first: int, stop: int) -> np.ndarray:
        """int16 [stop - first]: the sources of the rows from `first` on."""
        return self.pattern[np.arange(first, stop) % PERIOD]

    def rows_before(self, row: int) -> np.ndarray:
        """int64 [sources]: how many of the rows before `row` belong to each source."""
        periods, rest = divmod(row, PERIOD)
        return periods * self.shares + [int(np.searchsorted(slots, rest)) for slots in self._slots]
