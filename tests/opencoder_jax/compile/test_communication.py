"""What a step has to move is what its program moves, along every axis of the mesh, to the byte; the rest is named."""

from importlib.util import find_spec

import jax
import pytest

from opencoder_jax.compile.chips import Cluster, Topology
from opencoder_jax.compile.communication import Due, due, unexplained
from opencoder_jax.compile.lower import Compiled, lower_for
from opencoder_jax.compile.program.collectives import Collective, collectives_of
from opencoder_jax.compile.program.hlo import CompiledProgram
from opencoder_jax.parallel.mesh import make_mesh
from opencoder_jax.recipe import bind
from opencoder_jax.training.run import Recipe
from opencoder_jax.training.step import abstract_state

MESH = {"replica": 2, "fsdp": 4, "context": 1, "tensor": 2}
GROUPS = "replica_groups={{0,2,4,6},{8,10,12,14},{1,3,5,7},{9,11,13,15}}"  # along fsdp
TEXT = """HloModule step

%body (p: (s32[], bf16[64,1024])) -> (s32[], bf16[64,1024]) {
  %p = (s32[], bf16[64,1024]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = bf16[64,1024]{1,0} get-tuple-element(%p), index=1
  %begin = (bf16[64,1024]{1,0}, bf16[256,1024]{1,0}) all-gather-start(%x), GROUPS, metadata={op_name="jit(f)/ffn/dot"}
  %end = bf16[256,1024]{1,0} all-gather-done(%begin)
  ROOT %out = (s32[], bf16[64,1024]{1,0}) tuple(%i, %x)
}

%condition (q: (s32[], bf16[64,1024])) -> pred[] {
  ROOT %q = (s32[], bf16[64,1024]{1,0}) parameter(0)
}

ENTRY %main (x0: bf16[64,1024]) -> bf16[64,1024] {
  %x0 = bf16[64,1024]{1,0} parameter(0)
  %start = (s32[], bf16[64,1024]{1,0}) tuple(%x0)
  %loop = (s32[], bf16[64,1024]{1,0}) while(%start), condition=%condition, body=%body, TRIPS
  %y = bf16[64,1024]{1,0} get-tuple-element(%loop), index=1
  %part = bf16[16,1024]{1,0} reduce-scatter(%y), replica_groups=mesh['a'=2,'b'=4,'c'=2] {'b'}
  ROOT %sum = bf16[64,1024]{1,0} all-reduce(%y), replica_groups={}
}
""".replace("GROUPS", GROUPS)


def program(trips: str) -> CompiledProgram:
    return CompiledProgram(TEXT.replace("TRIPS", trips))


def test_collectives_are_read_with_their_axes_and_turns() -> None:
    gathered, scattered, summed = collectives_of(program('backend_config={"known_trip_count":{"n":"12"}}'), MESH)
    assert (gathered.kind, gathered.axes, gathered.runs) == ("all-gather", {"fsdp"}, 12)
    assert gathered.bytes == 12 * 256 * 1024 * 2 * 3 / 4
    assert gathered.source == "jit(f)/ffn/dot"
    assert (scattered.kind, scattered.axes, scattered.bytes) == ("reduce-scatter", {"fsdp"}, 64 * 1024 * 2 * 3 / 4)
    assert (summed.kind, summed.axes) == ("all-reduce", {"replica", "fsdp", "tensor"})
    assert summed.bytes == 2 * 64 * 1024 * 2 * 15 / 16


def test_collectives_in_a_loop_that_cannot_be_counted_are_an_error() -> None:
    with pytest.raises(ValueError, match="begin: how often"):
        collectives_of(program("metadata={}"), MESH)


def test_what_is_not_due_is_named_with_its_size_and_origin() -> None:
    def moved(kind: str, axes: set[str], size: float) -> Collective:
        return Collective(
            kind, frozenset(axes), 2, size, (0, 1), "jit(step)/while/body/attention/dot_general", "bf16[9,9]"
        )

    dues = [Due("all-gather", frozenset({"fsdp"}), 3 * 2.0**30, "weights")]
    fine = [moved("all-gather", {"fsdp"}, 2.0**30), moved("all-gather", {"fsdp"}, 2.0**31)]
    norms = [moved("all-reduce", {"tensor"}, 2 * 16 * 128)]
    assert unexplained(fine + norms, dues, 128) == []
    (more,) = unexplained([*fine, moved("all-gather", {"fsdp"}, 2.0**28)], dues, 128)
    assert more.startswith(
        "all-gather along fsdp: 3.25 GiB, where 3.00 GiB are due (weights): 2 x bf16[9,9] (2.00 GiB)"
    )
    (other,) = unexplained([*fine, moved("all-gather", {"fsdp", "replica"}, 2.0**28)], dues, 128)
    assert other.startswith("all-gather along fsdp and replica: 0.25 GiB, where none is due")
    assert "from attention, forward: body/attention/dot_general" in other


def test_what_the_compiler_made_is_known_by_its_shape() -> None:
    bind(["gin_configs/pretrain/cookbook.gin"], [])
    recipe = Recipe.from_gin()
    mesh = make_mesh(recipe.mesh, jax.devices("cpu")[:1])
    parameters = abstract_state(recipe, mesh).parameters
    rows, columns = parameters["head"].shape

    def whose(shape: str) -> str:
        moved = Collective("all-reduce", frozenset({"fsdp"}), 8, 2.0**30, (0, 1), "", shape)
        return unexplained([moved], [], 128, parameters)[0]

    assert whose(f"bf16[{rows},{columns}]{{1,0}}").endswith("of the shape of head")
    assert whose("bf16[7,9]{1,0}").endswith("of the shape of no weight")


def compiled(topology: str, changes: list[str], **mesh: int) -> tuple[Compiled, list[Due]]:
    sizes = [f"MeshConfig.{axis}={size}" for axis, size in mesh.items()]
    bind(
        ["gin_configs/pretrain/cookbook.gin"],
        # A head fills a TPU's lanes, or its gradients would have a layout in which they can't be scattered.
        [
            *("ModelConfig.dtype='bfloat16'", "ModelConfig.head_size=128"),
            *("DataConfig.phases=((0, 256, 8),)", "TrainConfig.microbatch=1"),
            *(*sizes, *changes),
        ],
    )
    recipe = Recipe.from_gin()
    lowered = lower_for(recipe, Topology.parse(topology))
    return lowered.compile(), due(recipe, lowered.mesh.shape, lowered.state.parameters, lowered.rows, lowered.length)


libtpu = pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu")


@libtpu
@pytest.mark.parametrize(
    "mesh",
    [
        {"fsdp": 2, "context": 2, "tensor": 2},
        pytest.param({"replica": 2, "fsdp": 4}, marks=pytest.mark.slow),
        pytest.param({"replica": 2, "fsdp": 2, "context": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_program_moves_what_is_due(mesh: dict[str, int]) -> None:
    step, dues = compiled("v5e:2x4", [], **mesh)
    assert step.unexplained == []
    for kind, axes in {(one.kind, one.axes) for one in dues}:
        dues = [one for one in dues if "at most" not in one.what]
        asked = sum(one.bytes for one in dues if (one.kind, one.axes) == (kind, axes))
        moved = sum(one.bytes for one in step.collectives if (one.kind, one.axes) == (kind, axes))
        assert moved == pytest.approx(asked, rel=0.01), (kind, axes)


@pytest.mark.slow
@libtpu
def test_a_teachers_distributions_are_in_the_program_and_move_nothing_more() -> None:
    mesh = {"fsdp": 2, "context": 2, "tensor": 2}
    plain, _ = compiled("v5e:2x4", [], **mesh)
    taught, _ = compiled("v5e:2x4", ["DataConfig.teacher='_teacher'", "TeachConfig.k=24"], **mesh)
    assert taught.unexplained == []
    # Of each token that a chip reads 24 ids and as many log-probabilities: 8 rows of 256 over 4 parts.
    assert taught.memory["batch"] - plain.memory["batch"] == pytest.approx(8 * 256 / 4 * 24 * 8, rel=0.1)


@pytest.mark.slow
@libtpu
def test_gradients_that_are_summed_up_whole_are_named() -> None:
    """A part of the heads that doesn't fill the lanes has a layout in which XLA can't scatter it."""
    step, _ = compiled("v5e:2x2", ["ModelConfig.head_size=32"], fsdp=2, tensor=2)
    (what,) = step.unexplained
    assert what.startswith("all-reduce along fsdp: 0.00 GiB, where none is due")
    assert "from attention, gradients: " in what
    assert what.endswith("attention/dot_general")


def test_how_long_gpus_need_at_least() -> None:
    cluster = Cluster.parse("h100:16")
    assert cluster.hosts == 2
    assert cluster.seconds(range(8), 7e9) == pytest.approx(7e9 / 4.5e11)
    # Of 15 GB, 8 come from the other host, through eight adapters; of two GPUs on two hosts, all through one.
    assert cluster.seconds(range(16), 15e9) == pytest.approx(max(15e9 / 4.5e11, 1e9 / 5e10))
    assert cluster.seconds((0, 8), 1e9) == pytest.approx(1e9 / 5e10)
