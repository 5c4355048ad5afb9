"""Meshes: sizes, shardings, and a training run that is the same on eight devices as on one."""

import json
import os
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, PartitionSpec

from opencoder_jax.parallel.mesh import AXES, MeshConfig, weight_sharding
from opencoder_jax.training.step import abstract_state
from tests.opencoder_jax.training.small_run import first_steps, small_recipe

EIGHT_DEVICES = """
import json, sys
from pathlib import Path
import jax
from tests.opencoder_jax.training.small_run import first_steps

assert jax.device_count() == 8
meshes = (
    {"MeshConfig_replica": 2, "MeshConfig_fsdp": 2, "MeshConfig_tensor": 2},
    {"MeshConfig_context": 2, "MeshConfig_tensor": 2, "TrainConfig_microbatch": 2},
    {"DataConfig_teacher": "_teacher", "MeshConfig_replica": 2},
    {"DataConfig_teacher": "_teacher", "MeshConfig_tensor": 2, "TrainConfig_microbatch": 1},
)
print(json.dumps([first_steps(Path(sys.argv[1]), **changes) for changes in meshes]))
"""


@pytest.mark.slow
def test_losses_do_not_depend_on_the_mesh(data: Path) -> None:
    environment = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES, str(data)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, taught = first_steps(data), first_steps(data, DataConfig_teacher="_teacher")
    assert one[2][0] < one[0][0]
    assert one[0][0] == pytest.approx(taught[0][0])  # the loss is of the text in both
    assert one[0][1] != pytest.approx(taught[0][1])
    meshes = json.loads(done.stdout.splitlines()[-1])
    for single, other in zip([one, one, taught, taught], meshes, strict=True):
        for expected, found in zip(single, other, strict=True):
            assert found == pytest.approx(expected, rel=2e-5)


@given(st.tuples(*(st.integers(1, 4) for _ in AXES)), st.sampled_from([None, *range(4)]))
def test_sizes_fill_the_devices(sizes: tuple[int, ...], rest: int | None) -> None:
    given_sizes = [-1 if axis == rest else size for axis, size in enumerate(sizes)]
    assert MeshConfig(*given_sizes).sizes(prod(sizes)) == sizes


@given(st.tuples(*(st.integers(1, 4) for _ in AXES)), st.integers(1, 64))
def test_sizes_that_do_not_fit_are_refused(sizes: tuple[int, ...], devices: int) -> None:
    assume(prod(sizes) != devices)
    with pytest.raises(ValueError, match=f"doesn't fit {devices} devices"):
        MeshConfig(*sizes).sizes(devices)


@pytest.mark.parametrize("fields", [{"fsdp": 0}, {"tensor": -2}, {"replica": -1, "fsdp": -1}])
def test_nonsense_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="-1"):
        MeshConfig(**fields)


def test_weights_and_their_moments_lie_alike() -> None:
    mesh = AbstractMesh((1, 4, 1, 2), AXES)
    state = abstract_state(small_recipe(), mesh)
    for tree in (state.parameters, state.optimizer[1].mu, state.optimizer[1].nu):
        assert tree["layers"]["query"].sharding.spec == PartitionSpec(None, "fsdp", "tensor", None)
        assert tree["layers"]["down"].sharding.spec == PartitionSpec(None, "tensor", "fsdp")
        assert tree["head"].sharding.spec == PartitionSpec("fsdp", "tensor")
    assert state.optimizer[1].count.sharding.spec == PartitionSpec()


def test_what_a_mesh_cannot_divide_is_named() -> None:
    with pytest.raises(ValueError, match="kv_heads 2 can't be divided by tensor=4"):
        abstract_state(small_recipe(), AbstractMesh((1, 1, 1, 4), AXES))
    with pytest.raises(ValueError, match="weight axis 'breadth' isn't in WEIGHT_AXES"):
        weight_sharding(AbstractMesh((1, 1, 1, 1), AXES), ("breadth",), (8,))
