"""Compiling for TPUs that aren't here: the program is read right, the clock adds up, and recipes fit or say why not."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from opencoder_jax.compile import advice
from opencoder_jax.compile.chips import CHIPS, GPUS, Cluster, Topology
from opencoder_jax.compile.compile import main
from opencoder_jax.compile.estimate import estimate, part_of
from opencoder_jax.compile.kernels import executed_flops, kernel_cycles
from opencoder_jax.compile.program.collectives import collectives_of
from opencoder_jax.compile.program.hlo import CompiledProgram, shape_bytes
from opencoder_jax.kernels.attention.tpu import attention as tpu
from opencoder_jax.kernels.attention.tpu import cycles
from opencoder_jax.kernels.attention.tpu.blocks import blocks_for
from opencoder_jax.recipe import UserError, bind
from opencoder_jax.training.run import Recipe

ROOT = Path(__file__).resolve().parents[3]

# A loop of 12 turns, two at a time, around 1.5 million cycles, beside which an all-gather runs; then an all-reduce that
# nothing runs beside, of the size of the gathered array.
TEXT = """HloModule step, is_scheduled=true

%body (p: (s32[], bf16[256,1024])) -> (s32[], bf16[256,1024]) {
  %p = (s32[]{:T(128)}, bf16[256,1024]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = bf16[256,1024]{1,0} get-tuple-element(%p), index=1
  %two = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%i, %two)
  %begin = (bf16[256,1024]{1,0}, bf16[4096,1024]{1,0}, u32[]{:S(2)}) all-gather-start(%x), replica_groups=[1,16]<=[16]
  %work = bf16[256,1024]{1,0:T(8,128)S(1)} fusion(%x), calls=%inner, op_name="jvp(ffn)", "estimated_cycles":"1500000"
  %end = bf16[4096,1024]{1,0} all-gather-done(%begin)
  ROOT %out = (s32[]{:T(128)}, bf16[256,1024]{1,0}) tuple(%next, %work)
}

%condition (q: (s32[], bf16[256,1024])) -> pred[] {
  %q = (s32[]{:T(128)}, bf16[256,1024]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(24)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %less = pred[]{:T(512)} compare(%j, %limit), direction=LT
}

%inner (a: bf16[256,1024]) -> bf16[256,1024] {
  ROOT %a = bf16[256,1024]{1,0} parameter(0)
}

ENTRY %main (x0: bf16[256,1024]) -> bf16[256,1024] {
  %zero = s32[]{:T(128)} constant(0)
  %x0 = bf16[256,1024]{1,0} parameter(0)
  %start = (s32[]{:T(128)}, bf16[256,1024]{1,0}) tuple(%zero, %x0)
  %loop = (s32[]{:T(128)}, bf16[256,1024]{1,0}) while(%start), condition=%condition, body=%body
  %y = bf16[256,1024]{1,0} get-tuple-element(%loop), index=1
  %kernel.3 = bf16[256,1024]{1,0} custom-call(%y), custom_call_target="tpu_custom_call"
  ROOT %sum = bf16[256,1024]{1,0} all-reduce(%kernel.3), replica_groups={{0,1,2,3},{4,5,6,7},{8,9,10,11},{12,13,14,15}}
}
"""
POSITIONS = [(0, x, y) for x in range(4) for y in range(4)]


def test_the_clock_adds_up() -> None:
    """By hand: 1.5 GHz; 15/16 of 8 MiB over the two links of a corner at 45 GB/s take 87 us, beside 1 ms of work."""
    program = CompiledProgram(TEXT)
    body, entry = program.computations["body"], program.entry
    assert program.trips(entry.by_name["loop"], entry) == 12
    assert body.by_name["begin"].groups == (tuple(range(16)),)
    assert entry.by_name["sum"].groups[1] == (4, 5, 6, 7)
    assert shape_bytes(body.by_name["begin"].shape) == [2**19, 2**23, 4]

    result = estimate(program, Topology.parse("v5e:4x4"), POSITIONS, {"kernel": 3e6})
    gathered, reduced = result.traffic["all-gather"], result.traffic["all-reduce"]
    assert (gathered.count, gathered.bytes, gathered.waited) == (12, 12 * 2**23 * 15 / 16, 0)
    assert gathered.seconds == pytest.approx(12 * 2**23 * 15 / 16 / 9e10)
    # A row of 4 without a ring: the chip at its end has one link.
    assert reduced.seconds == pytest.approx(2 * 2**19 * 3 / 4 / 4.5e10)
    assert reduced.waited == pytest.approx(reduced.seconds)
    assert result.parts["ffn"] == pytest.approx(12 * 1e-3)
    assert result.kernels == {"kernel": (1, pytest.approx(2e-3))}
    assert result.seconds == pytest.approx(12e-3 + 2e-3 + reduced.seconds)
    assert not result.unknown


def test_a_collective_that_outlasts_its_work_is_waited_for() -> None:
    slow = CompiledProgram(TEXT.replace("1500000", "15000"))  # 10 us of work
    result = estimate(slow, Topology.parse("v5e:4x4"), POSITIONS, {})
    gathered = result.traffic["all-gather"]
    assert gathered.waited == pytest.approx(gathered.seconds - 12e-5)
    assert result.parts["ffn"] == pytest.approx(12e-5)
    assert any("kernel" in what for what in result.unknown)


def test_an_all_reduce_that_is_fused_with_its_slice_is_a_reduce_scatter() -> None:
    fused = """%all-reduce-scatter.1 (z: bf16[256,1024]) -> bf16[64,1024] {
  %z = bf16[256,1024]{1,0} parameter(0)
  %whole = bf16[256,1024]{1,0} all-reduce(%z), replica_groups={{0,1,2,3},{4,5,6,7},{8,9,10,11},{12,13,14,15}}
  %at = u32[] constant(0)
  ROOT %own = bf16[64,1024]{1,0} dynamic-slice(%whole, %at, %at), dynamic_slice_sizes={64,1024}
}

ENTRY"""
    before, _, _ = TEXT.partition("  ROOT %sum")
    text = before.replace("ENTRY", fused) + (
        "  ROOT %sum = bf16[64,1024]{1,0} fusion(%kernel.3), kind=kCustom, calls=%all-reduce-scatter.1\n}\n"
    )
    result = estimate(CompiledProgram(text), Topology.parse("v5e:4x4"), POSITIONS, {"kernel": 3e6})
    assert "all-reduce" not in result.traffic
    assert result.traffic["reduce-scatter"].bytes == 2**19 * 3 / 4
    assert result.traffic["reduce-scatter"].waited == pytest.approx(2**19 * 3 / 4 / 4.5e10)


def test_what_a_sparse_core_gathers_begins_with_its_operand_and_runs_beside_work() -> None:
    """A start prepares the core, the update hands over what is gathered, and the end waits for what is left."""
    offloaded = """%gathers (o: bf16[256,1024]) -> bf16[4096,1024] {
  %o = bf16[256,1024]{1,0} parameter(0)
  ROOT %whole = bf16[4096,1024]{1,0} all-gather(%o), channel_id=7, replica_groups=[1,16]<=[16], dimensions={0}
}

%on_a_sparse_core (c: bf16[256,1024]) -> bf16[4096,1024] {
  %c = bf16[256,1024]{1,0} parameter(0)
  ROOT %call = bf16[4096,1024]{1,0} custom-call(%c), custom_call_target="offloaded", called_computations={%gathers}
}

%body"""
    begin = next(line for line in TEXT.splitlines() if "%begin =" in line)
    work = next(line for line in TEXT.splitlines() if "%work =" in line)
    shape = "((), bf16[4096,1024]{1,0}, s32[])"
    text = TEXT.replace("%body", offloaded, 1).replace("all-gather-done(%begin)", "async-done(%handed)")
    text = text.replace(
        f"{begin}\n{work}",
        f'  %begin = {shape} async-start(), async_execution_thread="sparsecore", calls=%on_a_sparse_core\n'
        f"{work}\n"
        f"  %handed = {shape} async-update(%begin, %x)\n"
        f"{work.replace('%work', '%more').replace('1500000', '15000')}",
    )
    result = estimate(CompiledProgram(text), Topology.parse("v5e:4x4"), POSITIONS, {"kernel": 3e6})
    gathered = result.traffic["all-gather"]
    assert (gathered.count, gathered.bytes) == (12, 12 * 2**23 * 15 / 16)
    assert gathered.waited == pytest.approx(gathered.seconds - 12e-5)  # 10 us of work after the update
    assert result.sparse
    slow = estimate(CompiledProgram(text), Topology.parse("v5e:4x4"), POSITIONS, {"kernel": 3e6}, sparse_cores=0.25)
    assert slow.traffic["all-gather"].seconds == pytest.approx(4 * gathered.seconds)
    assert slow.traffic["all-gather"].waited == pytest.approx(4 * gathered.seconds - 12e-5)
    assert slow.traffic["all-reduce"] == result.traffic["all-reduce"]  # no SparseCore's
    [found] = [one for one in collectives_of(CompiledProgram(text), {"fsdp": 16}) if one.kind == "all-gather"]
    assert (found.runs, found.bytes) == (12, gathered.bytes)


def test_a_loop_that_cannot_be_counted_is_said() -> None:
    program = CompiledProgram(TEXT.replace("%zero = s32[]{:T(128)} constant(0)", "%zero = s32[]{:T(128)} parameter(1)"))
    assert any("loop" in what for what in estimate(program, Topology.parse("v5e:4x4"), POSITIONS, {}).unknown)


@pytest.mark.parametrize(
    ("attribute", "groups"),
    [
        ("replica_groups=[2,4]<=[2,2,2]T(2,1,0)", ((0, 4, 2, 6), (1, 5, 3, 7))),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("source_target_pairs={{0,1},{1,0}}", ((0, 1), (1, 0))),
    ],
)
def test_groups_of_collectives(attribute: str, groups: tuple[tuple[int, ...], ...]) -> None:
    text = TEXT.replace("replica_groups=[1,16]<=[16]", attribute)
    assert CompiledProgram(text).computations["body"].by_name["begin"].groups == groups


def test_elements_of_tuples_are_read_as_newer_compilers_print_them() -> None:
    text = TEXT.replace("  %i = s32[]{:T(128)} get-tuple-element(%p), index=0\n", "").replace("%i,", "%p#0,")
    text = text.replace("  %j = s32[]{:T(128)} get-tuple-element(%q), index=0\n", "").replace("%j,", "%q#0,")
    text = text.replace("  %y = bf16[256,1024]{1,0} get-tuple-element(%loop), index=1\n", "").replace("%y)", "%loop#1)")
    program = CompiledProgram(text)
    assert program.trips(program.entry.by_name["loop"], program.entry) == 12
    assert program.entry.by_name["loop#1"].shape == "bf16[256,1024]{1,0}"
    new, old = (
        estimate(x, Topology.parse("v5e:4x4"), POSITIONS, {"kernel": 3e6}) for x in (program, CompiledProgram(TEXT))
    )
    assert new == old


@pytest.mark.parametrize("text", ["h100", "h100:0", "h100:12", "h100:8x8", "v5e:8"])
def test_clusters_of_gpus_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match=r"--topology=.*: write"):
        Cluster.parse(text)


@pytest.mark.parametrize("text", ["v9:2x2", "v5e", "v5e:4", "v5e:4x0", "v5p:4x4", "x*v5e:2x2", "v5e:4xa"])
def test_topologies_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--topology="):
        Topology.parse(text)


def test_parts_are_found_by_the_innermost_scope() -> None:
    assert part_of("jit(train_step)/while/body/transpose(jvp(attention))/dot_general") == "attention"
    assert part_of("jit(train_step)/optimizer/mul") == "optimizer"
    assert part_of("jit(train_step)/loss/while/body/dot_general") == "head and loss"
    assert part_of("jit(train_step)/while/body/attention_like/add") == "other"


def test_flops_of_loops_count_as_often_as_they_run() -> None:
    @jax.checkpoint
    def layer(x: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
        return jnp.tanh(x @ w), None

    def loss(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.scan(layer, x, w)[0].sum()

    x, w = jnp.zeros((3, 8)), jnp.zeros((5, 8, 8))
    product = 2 * 3 * 8 * 8
    assert executed_flops(jax.make_jaxpr(loss)(x, w).jaxpr) == 5 * product
    # Forward, forward again, and two backward.
    assert executed_flops(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, w).jaxpr) == 4 * 5 * product


def test_kernels_count_by_their_schedule_and_where_there_is_none_by_their_flops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    q, k = jax.ShapeDtypeStruct((3, 512, 8, 128), jnp.bfloat16), jax.ShapeDtypeStruct((3, 512, 2, 128), jnp.bfloat16)
    blocks = blocks_for(CHIPS["v5p"].kind, 128, 4)

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return tpu.attention(q, k, v, jnp.zeros((3, 512), jnp.int32), blocks=blocks).sum()

    jaxpr = jax.make_jaxpr(jax.grad(loss))(q, k, k).jaxpr
    monkeypatch.setattr(cycles, "compiled", lambda *_: None)
    monkeypatch.setattr(cycles, "estimate", lambda *_: cycles.Cycles(10, 20))
    found = kernel_cycles(jaxpr, Topology.parse("v5p:2x2x1"))
    assert found.cycles == {"attention_forward": 3 * 8 * 10 / 2, "attention_backward": 3 * 8 * 20 / 2}  # two cores
    assert not found.least

    def refuse(*_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(cycles, "compiled", refuse)
    found = kernel_cycles(jaxpr, Topology.parse("v5p:2x2x1"))
    assert found.least == {"attention_forward", "attention_backward"}
    pairs = 3 * 8 * 512 * 512 / 2
    assert found.cycles["attention_forward"] == pytest.approx(4 * pairs * 128 / CHIPS["v5p"].peak * CHIPS["v5p"].clock)


def compile_command(*arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "opencoder_jax", "compile", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


libtpu = pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu")


@libtpu
def test_a_small_recipe_is_compiled_for_a_tpu(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    program = tmp_path / "program.txt"
    flags = ("--topology=v5e:2x2", f"--output={output}", f"--text={program}")
    done = compile_command("--gin_file=gin_configs/pretrain/cookbook.gin", *flags)
    assert done.returncode == 0, done.stderr
    assert "attention_forward" in program.read_text()
    for words in ("memory of a chip", "all-gather", "head and loss", "MFU, estimated"):
        assert words in done.stdout
    figures = json.loads(output.read_text())
    assert figures["mesh"]["fsdp"] == 4
    weights = 1_500_000 * 4 / 4  # about: float32, a quarter of them
    assert figures["memory_bytes"]["parameters"] == pytest.approx(weights, rel=0.5)
    assert figures["memory_bytes"]["optimizer"] == pytest.approx(2 * figures["memory_bytes"]["parameters"], rel=0.01)
    assert figures["executed_flops"] >= figures["model_flops"] * 0.95
    assert 0 < figures["estimated_mfu"] < 1
    assert {name for name, of in figures["kernels"].items() if of["by_schedule"]} == set(figures["kernels"])
    assert figures["estimated_seconds"]["attention"] > 0
    assert figures["estimated_seconds"]["ffn"] > 0
    assert figures["band"]["seconds"][0] == pytest.approx(figures["band"]["seconds"][1])  # no SparseCore on a v5e


@pytest.mark.slow
@libtpu
def test_a_mesh_axis_may_be_a_part_of_a_torus_axis() -> None:
    """A tensor axis of 2 lies on half of one of 4: the recipe is compiled far enough to be told its memory."""
    done = compile_command(
        "--gin_file=gin_configs/pretrain/opencoder_8b.gin",
        "--topology=v5e:4x4",
        "--gin.MeshConfig.replica=2",
        "--gin.MeshConfig.tensor=2",
        "--gin.TrainConfig.remat=none",
        "--gin.TrainConfig.microbatch=8",
    )
    assert done.returncode == 2
    assert "doesn't fit v5e:4x4" in done.stderr


@pytest.mark.slow
@libtpu
def test_a_recipe_that_does_not_fit_says_by_how_much_and_what_to_do() -> None:
    arguments = ["--gin_file=gin_configs/pretrain/opencoder_8b.gin", "--gin.MeshConfig.replica=1"]
    done = compile_command(*arguments, "--topology=v5e:2x2")
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]  # what took more than a minute said so before
    assert "doesn't fit v5e:2x2: a chip has 15.75 GiB and would need" in said
    assert "take more chips" in said


@libtpu
def test_any_program_is_estimated(tmp_path: Path) -> None:
    (tmp_path / "program.txt").write_text(TEXT)
    module, flags = "tests.benchmarks.program_estimates", ["--topology=v5e:4x4", "--kernel=kernel=3e6", "--flops=1e12"]
    command = [sys.executable, "-m", module, f"--program={tmp_path / 'program.txt'}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "a step: 0.014 s" in done.stdout
    assert "MFU: 0.36" in done.stdout  # 1e12 / 0.01402 s / 197 TFLOP/s


def test_other_numbers_of_copies_are_tried_for_what_is_not_due(monkeypatch: pytest.MonkeyPatch) -> None:
    bind(["gin_configs/pretrain/cookbook.gin"], ["MeshConfig.replica=2"])
    recipe, chips = Recipe.from_gin(), Topology.parse("v5e:4x4")
    assert [(of.mesh.replica, of.mesh.fsdp) for of in advice.neighbours(recipe, chips)] == [(4, 4), (8, 2), (1, 16)]

    def lower(recipe: Recipe, chips: Topology, step: int | None) -> SimpleNamespace:
        if recipe.mesh.replica == 8:
            raise UserError("doesn't fit")
        undue = [] if recipe.mesh.replica == 4 else ["all-reduce along fsdp: 6.25 GiB, where none is due: 2 x f32[9]"]
        compiled = SimpleNamespace(unexplained=undue, memory={"program": 2.0**30})
        return SimpleNamespace(compile=lambda: compiled)

    monkeypatch.setattr(advice, "lower_for", lower)
    monkeypatch.setattr(advice, "report_on", lambda *_: SimpleNamespace(estimate=SimpleNamespace(seconds=2.0)))
    step: Any = SimpleNamespace(step=SimpleNamespace(recipe=recipe, chips=chips, first_step=None))
    assert list(advice.try_neighbours(step, 0.5)) == [
        "  MeshConfig.replica=4 (fsdp 4): 2.000 s a step, 1.00 GiB; nothing is moved that isn't asked for",
        "  MeshConfig.replica=8 (fsdp 2): doesn't fit",
        "  MeshConfig.replica=1 (fsdp 16): 2.000 s a step, 1.00 GiB; not asked for: all-reduce along fsdp",
    ]


@libtpu
def test_a_recipe_names_its_chips_and_the_cookbooks_name_none() -> None:
    done = compile_command("--gin_file=gin_configs/pretrain/cookbook.gin")
    assert done.returncode == 2
    assert "names no chips (MeshConfig.topology): give --topology" in done.stderr


@pytest.mark.skipif(find_spec("jax_cuda13_plugin") is not None, reason="NVIDIA's packages are here")
def test_gpus_without_nvidias_packages_are_one_clear_line() -> None:
    done = compile_command("--gin_file=gin_configs/pretrain/cookbook.gin", "--topology=h100:8")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --topology=h100:8: compiling for GPUs needs NVIDIA's packages")


# A Python with the extra `cuda`.
CUDA_PYTHON = os.environ.get("CUDA_PYTHON", sys.executable)


@pytest.mark.slow
def test_the_1p5b_is_compiled_for_gpus(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    recipe = "--gin_file=gin_configs/pretrain/opencoder_1p5b.gin"
    one_row = ["--gin.TrainConfig.microbatch=1", '--gin.TrainConfig.remat="dots"']
    done = compile_command(recipe, *one_row, "--topology=h100:8", f"--output={output}", python=CUDA_PYTHON)
    if "needs NVIDIA's packages" in done.stderr:
        pytest.skip("compiling for GPUs needs the extra `cuda` (4 GB), here or in the Python that CUDA_PYTHON names")
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())
    assert sum(figures["memory_bytes"].values()) < GPUS["h100"].memory
    assert figures["memory_bytes"]["parameters"] == pytest.approx(4 * 1_905_650_880 / 4, rel=0.001)  # two copies
    microbatches = 1024 // 8
    assert figures["microbatches"] == microbatches
    for kernel in ("attention_forward", "attention_backward_keys", "attention_backward_queries"):
        assert figures["kernels"][kernel] == 24 * microbatches
    assert figures["unexplained_collectives"] == []
    assert figures["executed_flops"] >= 0.99 * figures["model_flops"]  # attention is in it
    assert 0.9 < figures["mfu_at_most"] < 1.01  # "dots" computes no product again, so the peak is the only bound


@pytest.mark.slow
def test_a_recipe_that_does_not_fit_a_gpu_says_so() -> None:
    arguments = ["--gin_file=gin_configs/pretrain/opencoder_8b.gin", "--gin.MeshConfig.replica=1"]
    done = compile_command(*arguments, "--topology=h100:1", python=CUDA_PYTHON)
    if "needs NVIDIA's packages" in done.stderr:
        pytest.skip("compiling for GPUs needs the extra `cuda` (4 GB), here or in the Python that CUDA_PYTHON names")
    assert done.returncode == 2
    assert "doesn't fit h100:1: a chip has 79.1 GiB and would need" in done.stderr


@pytest.mark.slow
@libtpu
def test_a_step_of_decoding_moves_no_cache(tmp_path: Path) -> None:
    """It is read and written where it lies: the program holds no other array as large as one layer's keys."""
    flags = [
        "--topology=v5e:1x1",
        "--slots=256",
        f"--output={tmp_path / 'f.json'}",
        f"--text={tmp_path / 'program.txt'}",
    ]
    model = "--gin_file=gin_configs/models/cookbook.gin"
    sizes = ("ModelConfig.heads=2", "ModelConfig.head_size=160", "ModelConfig.kv_heads=2", "ModelConfig.layers=2")
    done = compile_command("--program=decode", model, *flags, *(f"--gin.{size}" for size in sizes))
    assert done.returncode == 0, done.stderr
    for words in ("memory of a chip", "cache", "tokens/s of a chip", "of the memory's bandwidth"):
        assert words in done.stdout
    figures = json.loads((tmp_path / "f.json").read_text())
    rows, of_a_layer = figures["rows"], figures["memory_bytes"]["cache"] / 4
    assert figures["memory_bytes"]["temporaries"] < of_a_layer
    assert figures["tokens_per_second_of_a_chip"] == pytest.approx(rows / sum(figures["estimated_seconds"].values()))
    text = (tmp_path / "program.txt").read_text()
    assert "attention_append" in text
    assert not re.search(rf"\[{rows},2,256,256\]\S* copy\(", text)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--slots=100"], "--slots=100: give a multiple of 128"),
        (["--topology=h100:8"], "for TPUs only"),
        (["--gin.TrainConfig.steps=3"], "doesn't read TrainConfig"),
        (["--step=3"], "--step"),
    ],
)
def test_what_decoding_cannot_be_asked(flags: list[str], words: str) -> None:
    chips = [] if "topology" in flags[0] else ["--topology=v5e:1x1"]
    with pytest.raises(UserError, match=re.escape(words)):
        main(["--program=decode", f"--gin_file={ROOT}/gin_configs/models/cookbook.gin", *chips, *flags])
