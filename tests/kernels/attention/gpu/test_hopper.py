"""The kernels for Hopper: in Mosaic GPU's interpreter against float64, and compiled for a GPU that needn't be there.

The interpreter runs warpgroups as threads that wait for one another at barriers, as on the GPU: a wait without an
arrival hangs, an arrival that nobody waits for is an error, and so is an access that no barrier orders. It doesn't
interpret products with an operand in registers, nor transposed ones: warpgroups.py computes those plainly here.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.pallas.mosaic.interpret import thread_map
from jax._src.pallas.mosaic_gpu.interpret import interpret_pallas_call
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

from opencoder_jax.kernels.attention.attention import attention
from opencoder_jax.kernels.attention.gpu.blocks import HOPPER, GpuBlocks, HopperRing, hopper_blocks
from opencoder_jax.kernels.attention.gpu.hopper import attention as hopper
from opencoder_jax.kernels.attention.gpu.hopper.warpgroups import TILE
from tests.kernels.attention.gpu.gpus import CUDA_PYTHON, has_cuda, on, shapes
from tests.kernels.attention.packed_rows import check_against_float64, check_isolation, inputs_of, positions_of

# XLA runs programs on as many threads as there are cores, and those of a kernel wait for one another: on two cores that
# hangs. The number must be set before JAX starts, so the interpreted tests run in a process of their own.
THREADS = "8"
interpreted_only = pytest.mark.skipif(
    os.environ.get("NPROC") != THREADS, reason="runs in a process with threads enough"
)

# Rows, heads, key heads, head size, dtype, queries, slots, the first query's slot, blocks.
SMALL = GpuBlocks(HopperRing(64, 2), HopperRing(64, 2), HopperRing(64, 1))
CASES = {
    "shared keys, 64, three stages": (1, 2, 1, 64, jnp.bfloat16, 200, 200, 0, hopper_blocks(64)),
    "160, float16": (1, 1, 1, 160, jnp.float16, 256, 256, 0, SMALL),
    "256, on a cache, keys and values apart": (2, 1, 1, 256, jnp.bfloat16, 70, 200, 130, hopper_blocks(256)),
}


@functools.cache
def interpreted(case: str) -> Callable[..., tuple[jax.Array, ...]]:
    """Output and gradients of a case's kernels, compiled once."""
    if jax.__version_info__ < (0, 11):
        _compile_each_thread_once()
    *_, slot, blocks = CASES[case]

    @jax.jit
    def run(q: jax.Array, k: jax.Array, v: jax.Array, d_out: jax.Array, positions: jax.Array) -> tuple[jax.Array, ...]:
        def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            interpret = InterpretGPUParams(detect_races=True)
            return hopper.attention(q, k, v, positions, slot, blocks=blocks, interpret=interpret)

        out, back = jax.vjp(mix, q, k, v)
        return out, *back(d_out)

    return run


def _compile_each_thread_once() -> None:
    """As newer JAX does: jax 0.10 compiles a kernel anew for every thread of every program."""
    evaluate = jax.jit(lambda jaxpr, consts, *args: jax.core.eval_jaxpr(jaxpr, consts, *args), static_argnums=(0,))

    def run(jaxpr: Any, consts: list[jax.Array], *args: jax.Array) -> None:
        evaluate.trace(jaxpr, consts, *args).lower().compile()(consts, *args)

    thread_map._run_jaxpr = run


DOCUMENTS = st.lists(st.integers(1, 150), max_size=5)


@interpreted_only
@pytest.mark.parametrize("case", CASES)
@settings(max_examples=3)
@given(lengths=st.tuples(DOCUMENTS, DOCUMENTS), seed=st.integers(0, 99))
def test_equals_float64_on_any_documents(case: str, lengths: tuple[list[int], ...], seed: int) -> None:
    rows, *_, dtype, length, _, slot, _ = CASES[case]
    positions = np.concatenate([positions_of(lengths[row], length, slot) for row in range(rows)])
    inputs = inputs_of(CASES[case], seed)
    check_against_float64(interpreted(case)(*inputs, positions), inputs, positions, slot, dtype)
    assert not interpret_pallas_call.get_races().races_found


@interpreted_only
def test_one_document_cannot_touch_another() -> None:
    case = "shared keys, 64, three stages"
    positions = positions_of([60, 97], 200, 0)
    check_isolation(interpreted(case), inputs_of(CASES[case], 0), positions, slice(60, 157))


@pytest.mark.slow
def test_the_interpreted_tests_pass() -> None:
    """In a process of their own."""
    command = [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", __file__, "-k", "float64 or touch"]
    environment = os.environ | {"NPROC": THREADS, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        text=True,
        cwd=Path(__file__).parents[4],
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(CASES) + 1} passed" in done.stdout, done.stdout


# ----------------------------------------------------------------------------------------------------- which one is run


def test_hopper_gets_them_by_name() -> None:
    by_name = functools.partial(attention, implementation="hopper")
    with jax.sharding.use_abstract_mesh(on("NVIDIA H100 80GB HBM3", fsdp=1)):
        assert "wgmma" in str(jax.make_jaxpr(by_name)(*shapes(64, 2, 160)))
        assert "wgmma" not in str(jax.make_jaxpr(attention)(*shapes(64, 2, 160)))


@pytest.mark.parametrize(
    ("chip", "inputs", "words"),
    [
        ("NVIDIA A100-SXM4-40GB", (64, 2, 64), "for Hopper, not NVIDIA A100"),
        ("NVIDIA H200", (64, 2, 64, jnp.float32), "all bfloat16 or all float16, not float32"),
        ("NVIDIA H200", (64, 2, 72), "multiples of 16 up to 256, not 72"),
        ("NVIDIA H200", (1, 2, 64), "one new token"),
    ],
)
def test_what_they_cannot_do_is_refused(chip: str, inputs: tuple[int, ...], words: str) -> None:
    with jax.sharding.use_abstract_mesh(on(chip, fsdp=1)), pytest.raises(ValueError, match=words):
        jax.eval_shape(functools.partial(attention, implementation="hopper"), *shapes(*inputs))


def test_blocks_fit_in_shared_memory() -> None:
    """232448 bytes a program: q (or keys and values), what is under way, results; 1 kB for barriers and numbers."""
    for size, blocks in HOPPER.items():
        tile = TILE * size * 2
        row = size * 2
        forward, keys, queries = blocks
        for used in (
            tile + 2 * forward.stages * forward.step * row,
            2 * tile + 2 * queries.stages * queries.step * row,
            2 * tile + 2 * keys.stages * (keys.step * row + 16 * keys.step),
        ):
            assert used + 3072 <= 232448, (size, blocks)


# ------------------------------------------------------------------------------------------------- compiled for the GPU


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["1.5B", "8B", "64", "256"])
def test_the_kernels_compile_without_spills(shape: str) -> None:
    if not has_cuda():
        pytest.skip("compiling for GPUs needs the extra `cuda` (4 GB), here or in the Python that CUDA_PYTHON names")
    command = [CUDA_PYTHON, "-m", "tests.benchmarks.attention_gpu_compiled", "--kernels=hopper", f"--shape={shape}"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, cwd=Path(__file__).parents[4])
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    backward_keys = ["attention_backward_keys"] * (2 if shape == "256" else 1)
    assert sorted(row["kernel"] for row in rows) == [*backward_keys, "attention_backward_queries", "attention_forward"]
    assert all(row["wgmma"] and not row["serialized"] for row in rows), rows
    for row in rows:  # what only the machine code shows: products don't wait for exponentials
        if row["kernel"] == "attention_forward" and "loop" in row:
            assert row["loop"]["beside"] == row["loop"]["exponentials"], row
    # A few bytes: three addresses, read once a step.
    assert all(row["spilled_bytes"] <= (32 if shape == "256" else 0) for row in rows), rows
