"""The Triton kernels: interpreted on the CPU against float64, and compiled for GPUs that needn't be there."""

import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from opencoder_jax.kernels.attention.attention import QUERIES, ROWS, attention
from opencoder_jax.kernels.attention.gpu.blocks import GpuBlocks, TritonBlock, triton_blocks
from opencoder_jax.kernels.attention.gpu.triton import attention as triton
from opencoder_jax.parallel.mesh import AXES, BATCH_AXES
from tests.kernels.attention.gpu.gpus import CUDA_PYTHON, has_cuda, on, shapes
from tests.kernels.attention.packed_rows import check_against_float64, check_isolation, inputs_of, positions_of
from tests.slow_cases import slow_but


def small(queries: int, keys: int) -> GpuBlocks[TritonBlock]:
    """Blocks so small that short rows have blocks that are skipped, whole and at edges."""
    by_queries = TritonBlock(queries, keys, 4, 1)
    return GpuBlocks(by_queries, TritonBlock(keys, queries, 4, 1), by_queries)


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
            return triton.attention(q, k, v, positions, slot, blocks=blocks, interpret=True)

        out, back = jax.vjp(mix, q, k, v)
        return out, *back(d_out)

    return run


DOCUMENTS = st.lists(st.integers(1, 90), max_size=6)


@pytest.mark.parametrize("case", slow_but(CASES, "shared keys, 64, whole blocks"))
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


# ----------------------------------------------------------------------------------------------------- which one is run


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


def test_the_table_knows_chips_by_name() -> None:
    hopper, ampere, other = (
        triton_blocks(chip, 128, jnp.bfloat16)
        for chip in ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA L40S")
    )
    assert len({hopper, ampere, other}) == 3
    assert triton_blocks("NVIDIA H200", 96, jnp.bfloat16) == hopper
    assert triton_blocks("NVIDIA H200", 128, jnp.float32) != hopper
    with pytest.raises(ValueError, match="the largest is 256"):
        triton_blocks("NVIDIA H200", 272, jnp.bfloat16)


# ------------------------------------------------------------------------------------------------- compiled for the GPU


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["hopper", "ampere", "ada"])
@pytest.mark.parametrize("shape", ["1.5B", "8B", "64", "256"])
def test_the_kernels_compile_without_spills(chip: str, shape: str) -> None:
    if not has_cuda():
        pytest.skip("compiling for GPUs needs the extra `cuda` (4 GB), here or in the Python that CUDA_PYTHON names")
    command = [CUDA_PYTHON, "-m", "tests.benchmarks.attention_gpu_compiled", f"--chip={chip}", f"--shape={shape}"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, cwd=Path(__file__).parents[4])
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    kernels = ["attention_backward_keys", "attention_backward_queries", "attention_forward"]
    assert sorted(row["kernel"] for row in rows) == kernels
    assert [row["spilled_bytes"] for row in rows] == [0, 0, 0], rows
    assert all(row["wgmma" if chip == "hopper" else "mma"] for row in rows), rows
