"""Arrays in large pages: the same numbers, and fewer pages where the system can."""

import ctypes
import mmap
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opencoder_jax.kernels.attention.cpu.pages import _COLLAPSE, LARGE, in_large_pages

SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def large_pages(address: int) -> int:
    """Kilobytes in large pages of the mapping that an address lies in."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            here = int(found[1], 16) <= address < int(found[2], 16)
        elif here and line.startswith("AnonHugePages"):
            return int(line.split()[1])
    return 0


class Laid:
    """What an array tells of its memory."""

    def __init__(self, begin: int, nbytes: int) -> None:
        self.nbytes = nbytes
        self._begin = begin

    def unsafe_buffer_pointer(self) -> int:
        return self._begin


@pytest.fixture
def laid(tmp_path: Path) -> Iterator[int]:
    """An aligned address: a file is mapped over its first half of a large page, memory over 3.5 more."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p,
        *[ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int],
        ctypes.c_size_t,
    )
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    size, memory, fixed = 6 * LARGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0x10
    whole = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, memory, -1, 0)
    begin = -(-whole // LARGE) * LARGE
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(LARGE // 2)
        mapped = libc.mmap(begin, LARGE // 2, mmap.PROT_READ, mmap.MAP_PRIVATE | fixed, file.fileno(), 0)
    assert mapped == begin
    ctypes.memset(begin + LARGE // 2, 1, 4 * LARGE - LARGE // 2)
    yield begin
    libc.munmap(whole, size)


needs_large_pages = pytest.mark.skipif(
    jax.default_backend() != "cpu"
    or sys.platform != "linux"
    or tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < (6, 1)
    or not SWITCH.exists()
    or "[never]" in SWITCH.read_text(),
    reason="the system moves nothing into large pages",
)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of a CPU's memory")
def test_arrays_stay_what_they_are() -> None:
    arrays = [jnp.arange(size, dtype=jnp.float32) * 2 for size in (1, 5000, LARGE, 3 * LARGE // 4)]
    in_large_pages(arrays)
    for array in arrays:
        np.testing.assert_array_equal(array, np.arange(len(array), dtype=np.float32) * 2)


@needs_large_pages
def test_an_array_lies_in_large_pages() -> None:
    if not have_room():
        pytest.skip("no large page is free")
    array = jnp.arange(LARGE, dtype=jnp.float32) * 2
    in_large_pages([array])
    assert large_pages(array.unsafe_buffer_pointer() + LARGE) > 0


@needs_large_pages
def test_a_file_beside_an_array_does_not_keep_it_small(laid: int) -> None:
    array = Laid(laid + LARGE // 2, 4 * LARGE - LARGE // 2)
    if not have_room():
        pytest.skip("no large page is free")
    in_large_pages([array])  # type: ignore[list-item]
    assert large_pages(laid + LARGE) >= 2 * LARGE // 1024
    assert set(ctypes.string_at(laid + LARGE // 2, array.nbytes)) == {1}


def have_room() -> bool:
    """Whether the system finds more large pages than the test wants, for memory beside which nothing lies."""
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with mmap.mmap(-1, 8 * LARGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(bytes(8 * LARGE))
        view = (ctypes.c_char * len(memory)).from_buffer(memory)
        begin = -(-ctypes.addressof(view) // LARGE) * LARGE
        found = libc.madvise(begin, 6 * LARGE, _COLLAPSE) == 0
        del view
    return found
