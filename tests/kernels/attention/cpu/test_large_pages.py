"""Arrays in large pages: the same numbers, and fewer pages where the system can."""

import platform
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opencoder_jax.kernels.attention.cpu.pages import LARGE, in_large_pages

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


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of a CPU's memory")
def test_arrays_stay_what_they_are() -> None:
    arrays = [jnp.arange(size, dtype=jnp.float32) * 2 for size in (1, 5000, LARGE, 3 * LARGE // 4)]
    in_large_pages(arrays)
    for array in arrays:
        np.testing.assert_array_equal(array, np.arange(len(array), dtype=np.float32) * 2)
    linux = sys.platform == "linux" and tuple(map(int, re.findall(r"\d+", platform.release())[:2])) >= (6, 1)
    if linux and SWITCH.exists() and "[never]" not in SWITCH.read_text():
        assert large_pages(arrays[2].unsafe_buffer_pointer() + LARGE) > 0
