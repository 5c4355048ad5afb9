"""What it costs on a CPU that a row's bits depend on the row alone: our products beside XLA's.

    python -m tests.benchmarks.cpu_products [--inner=512] [--outer=4096]

A float32 matrix, by rows of which each count is multiplied at once: by our kernel, by XLA as it likes (a row's bits
depend on how many others there are), and by XLA in parts that keep them. GFLOP/s of processors, the best of many; run
it on one core (`taskset -c 0`) where others use the machine.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from opencoder_jax.kernels.attention.cpu.packed import in_panels, product
from opencoder_jax.kernels.attention.rows import by_rows, cpu_kernels, jit_by_rows


def best(work: Callable[[], Any], seconds: float = 1.0) -> float:
    """Seconds of processors, the least of some."""
    jax.block_until_ready(work())
    least, until = float("inf"), time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.process_time()
        jax.block_until_ready(work())
        least = min(least, time.process_time() - began)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inner", type=int, default=512)
    parser.add_argument("--outer", type=int, default=4096)
    flags = parser.parse_args()
    if not cpu_kernels():
        parser.error("our kernels aren't to be had here")
    random = np.random.default_rng(0)
    matrix = jnp.asarray(random.standard_normal((flags.inner, flags.outer)), jnp.float32)
    panels = in_panels(matrix)
    ours, as_it_likes = jax.jit(product), jax.jit(jnp.matmul)
    in_parts = jit_by_rows()(lambda rows, matrix: by_rows(lambda part: part @ matrix, rows))
    print(f"{'rows':>5} {'ours':>8} {'XLA':>8} {'XLA, the same bits':>20}   ours by XLA")
    for count in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        rows = jnp.asarray(random.standard_normal((count, flags.inner)), jnp.float32)
        works = [lambda: ours(rows, panels), lambda: as_it_likes(rows, matrix), lambda: in_parts(rows, matrix)]  # noqa: B023
        rates = [2e-9 * count * flags.inner * flags.outer / best(work) for work in works]
        print(f"{count:>5} {rates[0]:>8.1f} {rates[1]:>8.1f} {rates[2]:>20.1f}   {rates[0] / rates[1]:.2f}", flush=True)


if __name__ == "__main__":
    main()
