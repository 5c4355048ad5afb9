"""cuDNN's and jax's own kernels as implementations: the same answers as the formula, packed rows included."""

import functools
from collections.abc import Callable
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from opencoder_jax.kernels.attention import peers, reference
from opencoder_jax.kernels.attention.attention import attention
from opencoder_jax.parallel.mesh import AXES, BATCH_AXES
from tests.kernels.test_attention import packed, qkv
from tests.kernels.test_attention_gpu import on, shapes
from tests.kernels.test_attention_tpu import devices

KERNELS = {"jax_triton": peers.jax_triton, "jax_splash": peers.jax_splash}


@pytest.mark.parametrize("name", KERNELS)
def test_they_equal_the_formula_and_its_gradients(name: str) -> None:
    positions = packed([100, 156], [256])
    q, k, v = (jnp.asarray(x) for x in qkv(2, 256, 4, 2, 128))
    mix = np.random.default_rng(1).standard_normal(q.shape)

    def with_gradients(kernel: Callable[..., jax.Array]) -> tuple[jax.Array, ...]:
        out, back = jax.vjp(lambda *x: kernel(*x, jnp.asarray(positions)), q, k, v)
        return out, *back(jnp.asarray(mix, out.dtype))

    got = with_gradients(functools.partial(KERNELS[name], interpret=True))
    for one, other in zip(got, with_gradients(reference.attention), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_documents_are_numbered() -> None:
    np.testing.assert_array_equal(peers.documents_of(packed([2, 3, 1], [6])), [[1, 1, 2, 2, 2, 3], [1] * 6])


def test_splash_wants_whole_tiles_of_tokens() -> None:
    with pytest.raises(ValueError, match="multiple of 128 tokens, not 200"):
        peers.splash_of(200, 1, 128)


@pytest.mark.skipif(find_spec("libtpu") is None, reason="compiling for TPUs needs libtpu")
def test_splash_is_compiled_for_a_mesh_of_tpus_where_it_is_asked_for() -> None:
    splash = functools.partial(attention, implementation="jax_splash")

    def compiled(*sizes: int) -> str:
        mesh = Mesh(np.array(devices("v5e")).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * 4)

        def struct(spec: PartitionSpec, *axes: int) -> jax.ShapeDtypeStruct:
            dtype = jnp.bfloat16 if len(axes) > 2 else jnp.int32
            return jax.ShapeDtypeStruct(axes, dtype, sharding=NamedSharding(mesh, spec))

        spec = PartitionSpec(*BATCH_AXES, "tensor")
        q, k = struct(spec, 2, 512, 4, 128), struct(spec, 2, 512, 2, 128)
        with jax.set_mesh(mesh):
            return jax.jit(splash).lower(q, k, k, struct(BATCH_AXES, 2, 512)).compile().as_text() or ""

    assert "splash_mqa" in compiled(1, 2, 1, 2)
    with pytest.raises(ValueError, match="whole rows, which the mesh's axis `context` divides"):
        compiled(1, 1, 2, 2)


@pytest.mark.parametrize("slot", [3, jnp.int32(0)])
def test_they_do_not_go_on_from_a_cache(slot: int | jax.Array) -> None:
    ask = functools.partial(attention, slot=slot, implementation="jax_triton")
    with (
        jax.sharding.use_abstract_mesh(on("NVIDIA H200", fsdp=1)),
        pytest.raises(ValueError, match="from slot 0 on, not a cache"),
    ):
        jax.eval_shape(ask, *shapes(128, 2, 64))
