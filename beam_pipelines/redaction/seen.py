"""Which of many literals a text may hold, at the price of one pass.

Redaction looks for some 300 literals, nearly none of which stand in a given text; to search for each costs more than
all else. Here each four bytes of a text mark a place of a table, and a literal whose own four bytes aren't all marked
is not in the text.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
from numba import njit

_SLOTS = 1 << 16
_LONGEST = 32  # bytes of a literal that are looked at


class Seen:
    """What four bytes a text holds, by a hash of 16 bits.

    Attributes:
        numbers: whether four numbers stand in it with points between, as an IP address has them.
        colons: whether two colons stand in it with at most four hexadecimal digits between.
    """

    def __init__(self, text: str) -> None:
        self._marked = np.zeros(_SLOTS + 1, np.bool_)
        self._marked[_SLOTS] = True  # of literals that are shorter than four bytes
        data = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
        _mark(data, self._marked)
        self.numbers, self.colons = _addresses(data)

    def among(self, literals: tuple[str, ...]) -> list[str]:
        """Those of the literals that may be in the text, in their order; what is left out is not in it."""
        return [literals[place] for place in np.flatnonzero(self._marked[_slots(literals)].all(axis=1))]


@njit(cache=True, nogil=True)
def _mark(data: npt.NDArray[np.uint8], marked: npt.NDArray[np.bool_]) -> None:
    four = np.uint64(0)
    for index in range(len(data)):
        four = ((four << np.uint64(8)) | np.uint64(data[index])) & np.uint64(0xFFFFFFFF)
        if index >= 3:
            marked[((four * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)) >> np.uint64(16)] = True


@njit(cache=True, nogil=True)
def _addresses(data: npt.NDArray[np.uint8]) -> tuple[bool, bool]:
    """Seen's `numbers` and `colons`."""
    numbers, colons = False, False
    points, digit, since = 0, False, 5
    for byte in data:
        is_digit = 48 <= byte <= 57
        if byte == 58:
            colons = colons or since <= 4
            since = 0
        else:
            since = since + 1 if is_digit or 97 <= (byte | 32) <= 102 else 5
        if byte == 46 and digit:
            points += 1
        elif not is_digit:
            points = 0
        numbers = numbers or (is_digit and points >= 3)
        digit = is_digit
    return numbers, colons


@cache
def _slots(literals: tuple[str, ...]) -> npt.NDArray[np.intp]:
    """A row of slots for each literal, the last of them repeated."""
    rows = np.full((len(literals), _LONGEST), _SLOTS, np.intp)
    for row, literal in zip(rows, literals, strict=True):
        marked = np.zeros(_SLOTS + 1, np.bool_)
        _mark(np.frombuffer(literal.encode()[:_LONGEST], np.uint8), marked)
        slots = np.flatnonzero(marked)
        row[: len(slots)] = slots
    return rows
