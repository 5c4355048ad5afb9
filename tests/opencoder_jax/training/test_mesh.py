"""Meshes: sizes, shardings, and a training run that is the same on eight devices as on one."""

import json
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
from conftest import small_recipe
from hypothesis import assume, given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, PartitionSpec

from opencoder_jax.training.mesh import AXES, MeshConfig, weight_sharding
from opencoder_jax.training.step import abstract_state

# Trains three steps on each mesh, all from the same state, and prints the losses and gradient norms.
EIGHT_DEVICES = """
import json, sys
from functools import partial
from pathlib import Path
import jax
from conftest import small_recipe
from opencoder_jax.data.batches import Batches
from opencoder_jax.model.decoder import abstract
from opencoder_jax.training.loop import place
from opencoder_jax.training.mesh import make_mesh
from opencoder_jax.training.step import abstract_state, initial_state, train_step

results = []
for devices, sizes, micro_batch in (
    (1, dict(fsdp=1), None),
    (8, dict(replica=2, fsdp=2, tensor=2), None),
    (8, dict(fsdp=2, context=2, tensor=-1), 2),
):
    recipe = small_recipe(TrainConfig_micro_batch=micro_batch, **{f"MeshConfig_{k}": v for k, v in sizes.items()})
    mesh = make_mesh(recipe.mesh, jax.devices()[:devices])
    batches = Batches(recipe.data, Path(sys.argv[1]), 3, 2)
    with jax.set_mesh(mesh):
        state = jax.jit(partial(initial_state, recipe))()
        state = jax.tree.map(lambda a, s: jax.device_put(a, s.sharding), state, abstract_state(recipe, mesh))
        update = jax.jit(partial(train_step, abstract(recipe.model)[0], recipe))
        rows = []
        for step in range(3):
            batch = place(batches, step, mesh)
            assert len(batch.tokens.sharding.device_set) == devices
            state, measured = update(state, batch, 1e-2)
            rows.append([float(measured.loss), float(measured.gradient_norm)])
        results.append(rows)
print(json.dumps(results))
"""


def test_losses_do_not_depend_on_the_mesh(data: Path) -> None:
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    import os

    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES, str(data)],
        env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, *others = json.loads(done.stdout.splitlines()[-1])
    assert one[2][0] < one[0][0]
    for other in others:
        for expected, found in zip(one, other, strict=True):
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
