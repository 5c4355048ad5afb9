"""Large pages of memory for what is read from end to end in each step: small ones cost a fifth of its time."""

import ctypes
import sys
from collections.abc import Iterable

import jax

LARGE = 1 << 21  # bytes
_COLLAPSE = 25  # MADV_COLLAPSE of Linux 6.1 and later; others say that they don't know it


def in_large_pages(arrays: Iterable[jax.Array]) -> None:
    """Has the memory of some arrays on one CPU moved into large pages where the system can."""
    if sys.platform != "linux":
        return
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    ranges: list[tuple[int, int]] = []
    for begin, size in sorted((each.unsafe_buffer_pointer(), each.nbytes) for each in arrays):
        begin, end = begin // LARGE * LARGE, -(-(begin + size) // LARGE) * LARGE
        if ranges and begin <= ranges[-1][1]:
            begin, last = ranges.pop()
            end = max(end, last)
        ranges.append((begin, end))
    for begin, end in ranges:
        # What of the first and the last page isn't ours is moved, too, which does it no harm; but where a file lies
        # there, the system refuses, and refuses all that one call asks for.
        inner = min(begin + LARGE, end), max(begin + LARGE, end - LARGE)
        for start, stop in ((begin, inner[0]), inner, (inner[1], end)):
            if start < stop:
                advise(start, stop - start, _COLLAPSE)
