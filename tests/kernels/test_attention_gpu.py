"""The Triton kernels: interpreted on the CPU against float64, and compiled for GPUs that needn't be there."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from opencoder_jax.kernels.attention import gpu
from opencoder_jax.kernels.attention.attention import QUERIES, ROWS, attention
from opencoder_jax.kernels.attention.bounds import ranges_of, sight
from opencoder_jax.kernels.attention.gpu import Block, Blocks
from opencoder_jax.parallel.mesh import AXES, BATCH_AXES
from tests.kernels.packed_rows import check_against_float64, check_isolation, inputs_of, positions_of


def small(queries: int, keys: int) -> Blocks:
    """Blocks so small that short rows have blocks out of sight, in full sight and at edges."""
    return Blocks(Block(queries, keys, 4, 1), Block(keys, queries, 4, 1), Block(queries, keys, 4, 1))


# Rows, heads, key heads, head size, dtype, queries, slots, the first query's slot, blocks.
CASES = {
    "own keys, 160": (2, 2, 2, 160, jnp.float32, 130, 130, 0, small(32, 16)),
    "shared keys, 64, whole blocks": (1, 4, 2, 64, jnp.float32, 128, 128, 0, small(32, 32)),
    "one key head, 128, bfloat16": (1, 4, 1, 128, jnp.bfloat16, 120, 120, 0, small(16, 32)),
    "256, on a cache, one block of queries": (1, 1, 1, 256, jnp.float32, 50, 200, 110, small(128, 32)),
}


@functools.cache
def interpreted(case: str) -> Callable[..., tuple[jax.Array, ...]]:
    """Output and gradients of a case's kernels, compiled once."""
    *_, slot, blocks = CASES[case]

    @jax.jit
    def run(q: jax.Array, k: jax.Array, v: jax.Array, d_out: jax.Array, positions: jax.Array) -> tuple[jax.Array, ...]:
        def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return gpu.attention(q, k, v, positions, slot, blocks=blocks, interpret=True)

        out, back = jax.vjp(mix, q, k, v)
        return out, *back(d_out)

    return run


DOCUMENTS = st.lists(st.integers(1, 90), max_size=6)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=10)
@given(lengths=st.tuples(DOCUMENTS, DOCUMENTS), seed=st.integers(0, 99))
def test_equals_float64_on_any_documents(case: str, lengths: tuple[list[int], ...], seed: int) -> None:
    rows, *_, dtype, length, _, slot, _ = CASES[case]
    positions = np.concatenate([positions_of(lengths[row], length, slot) for row in range(rows)])
    inputs = inputs_of(CASES[case], seed)
    check_against_float64(interpreted(case)(*inputs, positions), inputs, positions, slot, dtype)


def test_one_document_cannot_touch_another() -> None:
    case = "one key head, 128, bfloat16"
    positions = positions_of([30, 37, 20], 120, 0)
    check_isolation(interpreted(case), inputs_of(CASES[case], 0), positions, slice(30, 67))


@functools.cache
def both_ranges(queries: int, keys: int, slots: int) -> Callable[[np.ndarray], tuple[jax.Array, jax.Array]]:
    """Ranges of blocks of keys, a block of queries, and of queries, a block of keys; compiled once a size."""

    @jax.jit
    def run(bounds: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen, full = sight(bounds, queries, keys, slots)
        return ranges_of(seen, full)[0], ranges_of(seen.swapaxes(1, 2), full.swapaxes(1, 2))[0]

    return run


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 60), max_size=8),
    sizes=st.sampled_from([(16, 32, 96, 0), (32, 16, 150, 10), (32, 32, 7, 40), (16, 64, 193, 0)]),
)
def test_blocks_are_skipped_and_masked_where_they_must_be(lengths: list[int], sizes: tuple[int, ...]) -> None:
    """Nothing in sight is left out, nothing out of sight is computed, and no block in full sight is masked."""
    queries, keys, length, slot = sizes
    positions = positions_of(lengths, length, slot)[0]
    last = slot + np.arange(length)
    slots = slot + length
    sees = ((last - positions)[:, None] <= np.arange(slots)) & (np.arange(slots) <= last[:, None])
    blocks = -(-length // queries), -(-slots // keys)
    some, every = np.zeros(blocks, bool), np.zeros(blocks, bool)
    for i, j in np.ndindex(blocks):
        part = sees[i * queries : (i + 1) * queries, j * keys : (j + 1) * keys]
        some[i, j] = part.any()
        every[i, j] = part.all() and part.size == queries * keys
    of_keys, of_queries = both_ranges(queries, keys, slots)(np.stack((last - positions, last))[None].astype(np.int32))
    for flags, full_flags, ranges in ((some, every, of_keys), (some.T, every.T, of_queries)):
        for in_sight, in_full_sight, (begin, full_begin, full_end, end) in zip(
            flags, full_flags, np.asarray(ranges), strict=True
        ):
            inside = np.arange(len(in_sight))
            assert begin <= full_begin <= full_end <= end
            np.testing.assert_array_equal(in_sight, (begin <= inside) & (inside < end))
            np.testing.assert_array_equal(in_full_sight, (full_begin <= inside) & (inside < full_end))


# ----------------------------------------------------------------------------------------------------- which one is run


def on(chip: str, **axes: int) -> AbstractMesh:
    device = jax.sharding.AbstractDevice(device_kind=chip, num_cores=None, platform="gpu")
    kinds = (AxisType.Auto,) * len(axes)
    return AbstractMesh(tuple(axes.values()), tuple(axes), axis_types=kinds, abstract_device=device)


def shapes(length: int, heads: int, size: int, dtype: jnp.dtype = jnp.bfloat16) -> list[jax.ShapeDtypeStruct]:
    x = jax.ShapeDtypeStruct((2, length, heads, size), dtype)
    return [x, x, x, jax.ShapeDtypeStruct((2, length), jnp.int32)]


def test_a_gpu_gets_the_kernels_on_its_part_of_a_mesh() -> None:
    mesh = on("NVIDIA H100 80GB HBM3", **dict(zip(AXES, (1, 2, 1, 2), strict=True)))
    with jax.sharding.use_abstract_mesh(mesh):
        program = str(jax.make_jaxpr(attention)(*shapes(64, 4, 160)))
    assert "attention_forward" in program
    assert "bf16[1,64,2,160]" in program  # one of two rows, two of four heads
    assert PartitionSpec(ROWS, QUERIES) == BATCH_AXES


def test_what_the_kernels_cannot_do_falls_back_aloud(capfd: pytest.CaptureFixture[str]) -> None:
    with jax.sharding.use_abstract_mesh(on("NVIDIA A100-SXM4-40GB", fsdp=1)):
        for inputs in (shapes(64, 2, 24), shapes(1, 2, 64), shapes(64, 2, 64, jnp.float16)):
            assert "pallas_call" not in str(jax.make_jaxpr(attention)(*inputs))
            with pytest.raises(ValueError, match="attention: it"):
                jax.eval_shape(functools.partial(attention, implementation="gpu"), *inputs)
    said = capfd.readouterr().err
    for words in ("multiples of 16 up to 256, not 24", "one new token", "not float16"):
        assert said.count(words) == 1


def test_cudnn_is_refused_where_rows_may_hold_several_documents() -> None:
    q, k, v, positions = shapes(64, 2, 64)
    cudnn = functools.partial(attention, implementation="cudnn")
    with pytest.raises(ValueError, match="don't run on cpu"):
        jax.eval_shape(cudnn, q, k, v, None)
    with jax.sharding.use_abstract_mesh(on("NVIDIA H200", fsdp=1)):
        with pytest.raises(ValueError, match="attend across documents"):
            jax.eval_shape(cudnn, q, k, v, positions)
        with pytest.raises(ValueError, match="not a cache"):
            jax.eval_shape(functools.partial(cudnn, slot=3), q, k, v, None)


def test_no_positions_are_one_document_a_row() -> None:
    random = np.random.default_rng(0)
    q, k, v = (jnp.asarray(random.standard_normal((2, 9, 2, 8)), jnp.float32) for _ in range(3))
    positions = jnp.broadcast_to(jnp.arange(9), (2, 9))
    jitted = jax.jit(attention)
    np.testing.assert_array_equal(jitted(q, k, v, None), jitted(q, k, v, positions))


def test_the_table_knows_chips_by_name() -> None:
    hopper, ampere, other = (
        gpu.blocks_for(chip, 128, jnp.bfloat16)
        for chip in ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA L40S")
    )
    assert len({hopper, ampere, other}) == 3
    assert gpu.blocks_for("NVIDIA H200", 96, jnp.bfloat16) == hopper
    assert gpu.blocks_for("NVIDIA H200", 128, jnp.float32) != hopper
    with pytest.raises(ValueError, match="the largest is 256"):
        gpu.blocks_for("NVIDIA H200", 272, jnp.bfloat16)


# ------------------------------------------------------------------------------------------------- compiled for the GPU

# A Python with the extra `cuda`: it compiles in a process of its own, for which JAX starts otherwise than here.
CUDA_PYTHON = os.environ.get("CUDA_PYTHON", sys.executable)


@functools.cache
def has_cuda() -> bool:
    command = [CUDA_PYTHON, "-c", "import jax_plugins.xla_cuda13, nvidia.cu13"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["hopper", "ampere", "ada"])
@pytest.mark.parametrize("shape", ["1.5B", "8B", "64", "256"])
def test_the_kernels_compile_without_spills(chip: str, shape: str) -> None:
    if not has_cuda():
        pytest.skip("compiling for GPUs needs the extra `cuda` (4 GB), here or in the Python that CUDA_PYTHON names")
    command = [CUDA_PYTHON, "-m", "tests.benchmarks.attention_gpu_compiled", f"--chip={chip}", f"--shape={shape}"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    kernels = ["attention_backward_keys", "attention_backward_queries", "attention_forward"]
    assert sorted(row["kernel"] for row in rows) == kernels
    assert [row["spilled_bytes"] for row in rows] == [0, 0, 0], rows
    assert all(row["wgmma" if chip == "hopper" else "mma"] for row in rows), rows
