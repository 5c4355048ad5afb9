"""What large arrays took goes back to the system when they're freed.

The C library raises its bound for memory of its own (mmap) with each large block that is freed, up to 32 MB. Then the
arrays of a batch lie on the heap among small objects that live longer, and a freed one leaves a hole. A process that
maps shards for hours, in several threads, grows by such holes: to 410 MB in place of 69 after the near duplicates of
500 MB. A bound that is set stays as it is.

Who takes and frees the same arrays again and again pays for that with a page fault for every 4 KB: a training step on a
CPU was a third slower so. A process that also trains has the library's highest bound back when its pipeline has ended.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGE = 128 * 1024  # bytes: where the C library begins
HIGHEST = 32 * 1024 * 1024  # where it ends; it then keeps twice as much free memory


@contextmanager
def large_arrays_returned() -> Iterator[None]:
    """Within it large arrays go back to the system when they're freed; does nothing where the C library isn't glibc."""
    return_large_arrays()
    try:
        yield
    finally:
        _set(_M_MMAP_THRESHOLD, HIGHEST)
        _set(_M_TRIM_THRESHOLD, 2 * HIGHEST)


def return_large_arrays() -> None:
    """The same for the rest of a process."""
    _set(_M_MMAP_THRESHOLD, LARGE)


def _set(parameter: int, value: int) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(parameter, value)
