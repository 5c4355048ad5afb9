"""Many texts in one buffer, as compiled kernels and hashes read them, and which bytes make words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

IS_WORD = np.zeros(256, bool)
IS_WORD[[*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", *range(128, 256)]] = True


class Texts(NamedTuple):
    """UTF-8 texts end to end: text n is data[offsets[n] : offsets[n + 1]].

    Attributes:
        data: uint8, aligned to eight bytes; at least 16 zeros follow the last text, up to a multiple of eight.
        offsets: int64 [texts + 1], the first of them 0.
    """

    data: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, column: pa.Array) -> "Texts":
        """Those of a column of large strings without nulls."""
        _, offsets, data = column.buffers()
        if len(column) == 0 or data is None:
            return cls.join([b""] * len(column))
        found = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
        return _padded(memoryview(data)[found[0] : found[-1]], found - found[0])

    @classmethod
    def join(cls, texts: Sequence[bytes]) -> "Texts":
        """Those of a list."""
        return _padded(b"".join(texts), np.cumsum([0, *map(len, texts)], dtype=np.int64))

    def text(self, number: int) -> memoryview:
        """One text's bytes, not copied."""
        return self.data[self.offsets[number] : self.offsets[number + 1]].data


def _padded(data: bytes | memoryview, offsets: np.ndarray) -> Texts:
    padded = np.zeros(len(data) // 8 * 8 + 24, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    return Texts(padded, offsets)
