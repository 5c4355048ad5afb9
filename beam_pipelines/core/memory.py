"""What large arrays took goes back to the system when they're freed.

The C library raises its bound for memory of its own (mmap) with each large block that is freed, up to 32 MB. Then the
arrays of a batch lie on the heap among small objects that live longer, and a freed one leaves a hole. A process that
maps shards for hours, in several threads, grows by such holes: to 410 MB in place of 69 after the near duplicates of
500 MB. A bound that is set stays as it is.
"""

import ctypes

_M_MMAP_THRESHOLD = -3  # of mallopt(3)
LARGE = 128 * 1024  # bytes: where the C library begins


def return_large_arrays() -> None:
    """Fixes the bound for this process; does nothing where the C library isn't glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, LARGE)
