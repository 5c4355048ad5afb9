"""Memory of freed arrays goes back to the system."""

import subprocess
import sys

import pytest

# Large arrays, each freed with a smaller one above it that stays: the library of its own keeps such holes.
HOLES = """
import ctypes, re, sys
from pathlib import Path
from opencoder_jax.beam_pipelines.core.memory import return_large_arrays

if sys.argv[1] == "ours":
    return_large_arrays()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


def resident() -> int:
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024


libc.free(libc.malloc(30_000_000))  # the bound rises to it
before = resident()
arrays = []
for _ in range(20):
    arrays.append(libc.malloc(10_000_000))
    libc.memset(arrays[-1], 1, 10_000_000)
    libc.malloc(100_000)
for array in arrays:
    libc.free(array)
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_arrays_go_back_to_the_system() -> None:
    kept = {
        whose: int(
            subprocess.run([sys.executable, "-c", HOLES, whose], capture_output=True, text=True, check=True).stdout
        )
        for whose in ("ours", "glibc")
    }
    assert kept["ours"] < 5_000_000 < kept["glibc"]


# The same array taken and freed again and again, as a training step does, within a pipeline and after it.
AGAIN = """
import ctypes, resource
from opencoder_jax.beam_pipelines.core.memory import large_arrays_returned

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        array = libc.malloc(10_000_000)
        libc.memset(array, 1, 10_000_000)
        libc.free(array)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


with large_arrays_returned():
    within = faults()
print(within, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_what_follows_a_pipeline_keeps_its_arrays() -> None:
    ran = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True)
    within, after = map(int, ran.stdout.split())
    assert within > 5 * after, (within, after)
