"""The TPU kernels: interpreted on the CPU against float64, and compiled by Mosaic for chips that needn't be there."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from opencoder_jax.compile.kernels import kernel_calls
from opencoder_jax.kernels.attention import reference
from opencoder_jax.kernels.attention.attention import HEADS, QUERIES, ROWS, attention
from opencoder_jax.kernels.attention.tpu import attention as tpu
from opencoder_jax.kernels.attention.tpu import cycles, decode
from opencoder_jax.kernels.attention.tpu.blocks import BackwardBlocks, ForwardBlocks, TpuBlocks, blocks_for, fitted
from opencoder_jax.kernels.attention.tpu.segments import segments_of
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.parallel.mesh import AXES, BATCH_AXES, WEIGHT_AXES
from opencoder_jax.recipe import bind, build
from tests.kernels.attention.packed_rows import check_against_float64, check_isolation, inputs_of, positions_of
from tests.slow_cases import slow_but


def small(transposed: bool, chunk: int = 128, vmem: int = 128) -> TpuBlocks:
    """Blocks so small that short rows have blocks that are skipped, whole and at edges."""
    forward = ForwardBlocks(rows=256, keys=256, edge=128, edge_queries=128, chunk=chunk, transposed=transposed)
    return TpuBlocks(forward, BackwardBlocks(256, 256, 128, 128), vmem)


# Heads, key heads, head size, dtype, queries, slots, the first query's slot, blocks.
CASES = {
    "own keys, 160": (2, 2, 160, jnp.float32, 390, 390, 0, small(transposed=True)),
    "shared keys, 64": (4, 2, 64, jnp.float32, 513, 513, 0, small(transposed=False)),
    "one key head, 128, bfloat16": (4, 1, 128, jnp.bfloat16, 512, 512, 0, small(transposed=False, chunk=256)),
    "three to a key head, 64": (3, 1, 64, jnp.float32, 300, 300, 0, small(transposed=False)),
    "seven to a key head, 160": (7, 1, 160, jnp.float32, 130, 130, 0, small(transposed=True, chunk=256)),
    "in segments": (2, 1, 128, jnp.float32, 740, 740, 0, small(transposed=False, vmem=3)),
    "in segments, on a cache": (1, 1, 128, jnp.float32, 740, 1100, 330, small(transposed=True, vmem=3)),
    "256, on a cache": (1, 1, 256, jnp.float32, 200, 600, 280, small(transposed=True, chunk=256)),
    "sums of each head alone": (2, 1, 128, jnp.float32, 384, 384, 0, small(transposed=False, vmem=4)),
}


@functools.cache
def interpreted(case: str) -> Callable[..., tuple[jax.Array, ...]]:
    """Output and gradients of a case's kernels, compiled once."""
    *_, slot, blocks = CASES[case]

    @jax.jit
    def run(q: jax.Array, k: jax.Array, v: jax.Array, d_out: jax.Array, positions: jax.Array) -> tuple[jax.Array, ...]:
        def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return tpu.attention(q, k, v, positions, slot, blocks=blocks, interpret=True)

        out, back = jax.vjp(mix, q, k, v)
        return out, *back(d_out)

    return run


@pytest.mark.parametrize("case", slow_but(CASES, "one key head, 128, bfloat16"))
@settings(max_examples=5)
@given(lengths=st.lists(st.integers(1, 400), max_size=6), seed=st.integers(0, 99))
def test_equals_float64_on_any_documents(case: str, lengths: list[int], seed: int) -> None:
    *_, dtype, length, _, slot, _ = CASES[case]
    positions = positions_of(lengths, length, slot)
    inputs = inputs_of((1, *CASES[case]), seed)
    check_against_float64(interpreted(case)(*inputs, positions), inputs, positions, slot, dtype)


@given(length=st.integers(1, 10_000), group=st.integers(1, 16), chip=st.sampled_from(["TPU v4", "TPU v6 lite"]))
def test_blocks_are_fitted_so_that_rows_grow_little(length: int, group: int, chip: str) -> None:
    table = blocks_for(chip, 128, group)
    forward, backward, _ = fitted(table, group, length, length)
    most = max(length * 9 / 8, -(-length // 128) * 128)
    assert forward.rows % group == forward.rows % forward.chunk == 0
    for size in (forward.rows // group, forward.keys, backward.queries, backward.keys):
        assert size % 128 == 0
        assert -(-length // size) * size <= most
    assert forward.keys % forward.edge == backward.keys % backward.edge_keys == 0
    assert backward.queries % backward.edge_queries == 0
    if length % 1024 == 0:
        assert backward == table.backward


@pytest.mark.slow
@pytest.mark.parametrize("case", ["own keys, 160", "shared keys, 64", "sums of each head alone"])
def test_rows_are_computed_as_each_alone(case: str) -> None:
    *_, length, _, slot, _ = CASES[case]
    rows = [positions_of(lengths, length, slot) for lengths in ([100, 150], [length], [7, 300])]
    inputs = inputs_of((3, *CASES[case]), 0)
    together = interpreted(case)(*inputs, np.concatenate(rows))
    for row, positions in enumerate(rows):
        alone = interpreted(case)(*(x[row : row + 1] for x in inputs), positions)
        for one, all_rows in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], all_rows[row], atol=1e-5)


def test_one_document_cannot_touch_another() -> None:
    case = "one key head, 128, bfloat16"
    positions = positions_of([100, 130, 200], 512, 0)
    check_isolation(interpreted(case), inputs_of((1, *CASES[case]), 0), positions, slice(100, 230))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dtype"), [pytest.param(4, 2, jnp.float32, marks=pytest.mark.slow), (2, 2, jnp.bfloat16)]
)
def test_decoding_equals_the_reference(heads: int, kv_heads: int, dtype: jnp.dtype) -> None:
    """Rows that start at different slots, of a cache that holds garbage outside them."""
    random = np.random.default_rng(0)
    shapes = [(3, 1, heads, 160), (3, 700, kv_heads, 160), (3, 700, kv_heads, 160)]
    q, k, v = (jnp.asarray(random.standard_normal(shape), dtype) for shape in shapes)
    slot, positions = 520, jnp.array([[520], [3], [130]])
    exact = [x.astype(jnp.float32) for x in (q, k, v)]
    expected = reference.attention(exact[0], exact[1], exact[2], positions, jnp.int32(slot))
    k, v = (x.at[:, slot + 1 :].set(jnp.nan).at[1, : slot - 3].set(jnp.inf) for x in (k, v))
    got = decode.attention(q, k, v, positions, slot, keys=256, interpret=True)
    error = jnp.abs(got.astype(jnp.float32) - expected).max() / jnp.abs(expected).max()
    assert error < (1e-5 if dtype == jnp.float32 else 1e-2)


# ------------------------------------------------------------------------------------------------- compiled by Mosaic

MODELS = Path(__file__).resolve().parents[4] / "gin_configs" / "models"
KERNELS = {"attention_forward", "attention_backward"}
# Heads, key heads, head size, row length, rows: what the recipes train with.
SHAPES = {
    "1.5B": (14, 14, 160, 4096, 1),
    "8B": (32, 8, 128, 4096, 1),
    "8B at 8192": (32, 8, 128, 8192, 1),
    "3B": (24, 8, 128, 4096, 1),
}


@functools.cache
def devices(chip: str) -> list[jax.Device]:
    pytest.importorskip("libtpu", reason="compiling for TPUs needs libtpu")
    return cycles.devices_of(chip)


def gradients(q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> tuple[jax.Array, ...]:
    def total(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attention(q, k, v, positions).astype(jnp.float32).sum()

    return jax.grad(total, argnums=(0, 1, 2))(q, k, v)


def traced(chip: str, heads: int, kv_heads: int, size: int, length: int, rows: int = 1) -> jax.stages.Traced:
    """Output and gradients on a chip that needn't be there."""
    device = devices(chip)[0]

    def struct(dtype: jnp.dtype, *axes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(axes, dtype, sharding=SingleDeviceSharding(device))

    q = struct(jnp.bfloat16, rows, length, heads, size)
    k = struct(jnp.bfloat16, rows, length, kv_heads, size)
    with jax.set_mesh(Mesh(np.array([device]), ("fsdp",))):
        return jax.jit(gradients).trace(q, k, k, struct(jnp.int32, rows, length))


def kernels_in(found: jax.stages.Traced) -> set[str]:
    return set(kernel_calls(found.jaxpr.jaxpr))


@pytest.mark.parametrize("chip", cycles.TOPOLOGIES)
def test_any_group_of_query_heads_is_traced(chip: str) -> None:
    for group in range(1, 17):
        assert kernels_in(traced(chip, group, 1, 128, 4096)) == KERNELS, group


@pytest.mark.parametrize("chip", slow_but(cycles.TOPOLOGIES, "v6e"))
def test_rows_of_any_length_are_traced(chip: str) -> None:
    for length in (8192, 32_768, 65_536, 131_072):
        for heads, kv_heads, size in ((8, 1, 128), (1, 1, 160), (2, 1, 256)):
            assert kernels_in(traced(chip, heads, kv_heads, size, length)) == KERNELS, (length, size)


@pytest.mark.slow
@pytest.mark.parametrize("length", [8192, 16_384, 32_768, 65_536, 131_072])
@pytest.mark.parametrize("shape", [(1, 1, 160), (4, 1, 128), (8, 1, 256)])
@pytest.mark.parametrize("chip", cycles.TOPOLOGIES)
def test_long_rows_compile(chip: str, shape: tuple[int, int, int], length: int) -> None:
    assert "attention_backward" in (traced(chip, *shape, length).lower().compile().as_text() or "")


@pytest.mark.parametrize("chip", cycles.TOPOLOGIES)
def test_every_shipped_model_is_lowered(chip: str) -> None:
    """Its own heads, at 4096 tokens; Mosaic's compiler takes it from here (the test below)."""
    models = sorted(MODELS.glob("*.gin"))
    assert models
    for model in models:
        bind([str(model)])
        config = build(ModelConfig)
        found = traced(chip, config.heads, config.kv_heads, config.head_size, 4096)
        assert kernels_in(found) == KERNELS, model.name
        found.lower()


@pytest.mark.slow
@pytest.mark.parametrize("chip", cycles.TOPOLOGIES)
@pytest.mark.parametrize("group", range(1, 17))
@pytest.mark.parametrize("size", [128, 160])
def test_any_group_of_query_heads_compiles(chip: str, group: int, size: int) -> None:
    assert "attention_backward" in (traced(chip, group, 1, size, 4096).lower().compile().as_text() or "")


# One shape a chip takes seconds; the others are the slow proof.
QUICK = {("v4", "8B at 8192"), ("v5e", "1.5B"), ("v5p", "8B"), ("v6e", "3B")}


@pytest.mark.parametrize(
    ("chip", "shape"),
    [
        pytest.param(chip, shape, marks=[] if (chip, shape) in QUICK else pytest.mark.slow)
        for chip in cycles.TOPOLOGIES
        for shape in SHAPES
    ],
)
def test_the_kernels_compile_for_the_recipes(chip: str, shape: str) -> None:
    program = traced(chip, *SHAPES[shape]).lower().compile().as_text() or ""
    assert "attention_forward" in program
    assert "attention_backward" in program


def test_the_kernels_run_on_each_devices_part_of_a_mesh() -> None:
    """Rows, queries and heads divided; only keys and values are gathered, over the axis that divides the queries."""
    mesh = Mesh(np.array(devices("v5e")).reshape(1, 1, 2, 2), AXES, axis_types=(AxisType.Auto,) * 4)

    def struct(dtype: jnp.dtype, spec: PartitionSpec, *axes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(axes, dtype, sharding=NamedSharding(mesh, spec))

    spec = PartitionSpec(*BATCH_AXES, "tensor")
    q, k = struct(jnp.bfloat16, spec, 2, 512, 4, 128), struct(jnp.bfloat16, spec, 2, 512, 2, 128)
    with jax.set_mesh(mesh):
        program = jax.jit(attention).lower(q, k, k, struct(jnp.int32, BATCH_AXES, 2, 512)).compile().as_text() or ""
    assert (
        "bf16[1,2,128,512]" in program
    )  # what a kernel mixes: 1 key head, 2 heads to it, 128 of a head, 2 rows of 256
    assert "all-gather" in program


def test_the_axes_are_those_of_the_mesh() -> None:
    assert PartitionSpec(ROWS, QUERIES) == BATCH_AXES
    assert WEIGHT_AXES["heads"] == WEIGHT_AXES["kv_heads"] == HEADS


def test_what_a_kernel_cannot_do_is_said() -> None:
    x = jnp.zeros((1, 4, 2, 8))
    positions = jnp.arange(4)[None]
    with pytest.raises(ValueError, match="don't run on cpu"):
        attention(x, x, x, positions, implementation="tpu")
    with pytest.raises(ValueError, match="is none of reference, tpu, gpu, hopper"):
        attention(x, x, x, positions, implementation="flash")
    large = [jax.ShapeDtypeStruct((1, 4, 2, 264), jnp.float32)] * 3 + [jax.ShapeDtypeStruct((1, 4), jnp.int32)]
    with jax.set_mesh(Mesh(np.array(devices("v5e")[:1]), ("fsdp",))), pytest.raises(ValueError, match="up to 256"):
        jax.eval_shape(functools.partial(attention, implementation="tpu"), *large)


def test_a_reference_in_a_kernels_place_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    shapes = [jax.ShapeDtypeStruct((1, 4, 2, 12), jnp.bfloat16)] * 3 + [jax.ShapeDtypeStruct((1, 4), jnp.int32)]
    with jax.set_mesh(Mesh(np.array(devices("v5e")[:1]), ("fsdp",))):
        jax.eval_shape(attention, *shapes)
        jax.eval_shape(lambda *x: attention(*x), *shapes)
    assert capfd.readouterr().err.count("the reference runs on TPU v5 lite") == 1


def test_a_long_row_is_taken_in_as_few_segments_as_memory_takes() -> None:
    for case in ("in segments", "in segments, on a cache"):
        heads, kv_heads, size, dtype, length, slots, _, blocks = CASES[case]
        group = heads // kv_heads
        queries, keys = segments_of(fitted(blocks, group, length, slots), group, size, 4, length, slots)
        assert queries < length
        assert keys < slots
    for chip in cycles.KINDS.values():
        for length in (1000, 4096, 65_536, 100_000, 131_072):
            blocks = fitted(blocks_for(chip, 128, 4), 4, length, length)
            for segment in segments_of(blocks, 4, 128, 2, length, length):
                parts = -(-length // segment)
                assert segment * parts < length * 9 / 8 + 1024
                assert length > 4096 or parts == 1


def test_heads_too_many_for_the_memory_get_the_reference_and_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    q, k = ((1, 2048, heads, 256) for heads in (128, 1))
    assert kernels_in(traced("v4", 128, 1, 256, 2048)) == set()
    assert "128 query heads of 256 to a key head needs" in capfd.readouterr().err
    structs = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (q, k, k)]
    with pytest.raises(ValueError, match="MiB of VMEM"):
        jax.eval_shape(
            functools.partial(tpu.attention, blocks=blocks_for("TPU v4", 256, 128)),
            *structs,
            jax.ShapeDtypeStruct((1, 2048), jnp.int32),
        )
