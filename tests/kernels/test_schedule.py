"""Schedules are read body by body from the compiler's dump; a small real kernel is compiled for one."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from opencoder_jax.kernels import schedule

TABLE = """== CAPACTIY:
MATMUL, VALU, VSTORE:SPILL
    4     4     1
== UTILIZATION:
0 1 0
4 2 1
4 2 0
2 2 0
0 0 0
0 1 0
"""
LISTING = """= control target key start
LB: loop body
= control target key end

     0   :  { %s1 = smov.u32 0 }
   0x1 LB: > { %1 = vmatmul }
   0x2   : > { %2 = vmatmul }
   0x3   : > { %3 = sbr.rel (%p1) target bundleno = 1 (0x1), region = 2 }
   0x4   :  {}
   0x5   :  { %4 = vadd }
"""


def multiply(size: int) -> tuple[Any, list[jax.ShapeDtypeStruct]]:
    """What `schedules` compiles in its own process: twice the product of two matrices."""

    def kernel(a: Any, b: Any, out: Any) -> None:
        out[...] = jnp.dot(a[...], b[...], preferred_element_type=jnp.float32) * 2

    device = topologies.get_topology_desc("v5e:2x2", platform="tpu").devices[0]
    matrix = jax.ShapeDtypeStruct((size, size), jnp.bfloat16, sharding=SingleDeviceSharding(device))
    product = jax.ShapeDtypeStruct((size, size), jnp.float32)
    return pl.pallas_call(kernel, out_shape=product, name="doubled_product"), [matrix, matrix]


def test_bodies_begin_at_labels_and_end_at_branches(tmp_path: Path) -> None:
    (tmp_path / "17-my-kernel.1-68-pre-delay_hlo-static-per-bundle-utilization.txt").write_text(TABLE)
    (tmp_path / "17-my-kernel.1-65-packed-bundles-post-ra.txt").write_text(LISTING)
    (tmp_path / "17-my-kernel.1-64-schedule-analysis_packed-bundles-post-ra.txt").write_text("")
    (found,) = schedule.read(tmp_path)
    assert found.kernel == "my-kernel.1"
    assert [body.cycles for body in found.bodies] == [1, 3, 2]
    (loop,) = found.products()
    assert loop.fill() == 10 / 12
    assert loop.used[schedule.SPILLS] == 1
    assert found.cycles == 6
    assert schedule.read(tmp_path, "another") == []


def test_a_kernel_is_compiled_and_read_in_a_process_of_its_own() -> None:
    pytest.importorskip("libtpu", reason="compiling for TPUs needs libtpu")
    (found,) = schedule.schedules("tests.kernels.test_schedule:multiply", {"size": 512}, "doubled_product")
    # 512 ^ 3 products on four units of 128 x 128: 2048 cycles of a full matrix unit, and they can't be beaten.
    assert sum(body.used[schedule.MATRIX] for body in found.bodies) == 4 * 2048
    assert 2048 < found.cycles < 4096


def test_what_does_not_compile_is_an_error_with_the_compilers_words() -> None:
    with pytest.raises(RuntimeError, match="no_such_function"):
        schedule.schedules("tests.kernels.test_schedule:no_such_function", {})
