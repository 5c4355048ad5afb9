"""GPUs that needn't be there, for the tests of kernels for them."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

# A Python with the extra `cuda`: it compiles in a process of its own, for which JAX starts otherwise than here.
CUDA_PYTHON = os.environ.get("CUDA_PYTHON", sys.executable)


@functools.cache
def has_cuda() -> bool:
    command = [CUDA_PYTHON, "-c", "import jax_plugins.xla_cuda13, nvidia.cu13"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def on(chip: str, **axes: int) -> AbstractMesh:
    device = jax.sharding.AbstractDevice(device_kind=chip, num_cores=None, platform="gpu")
    kinds = (AxisType.Auto,) * len(axes)
    return AbstractMesh(tuple(axes.values()), tuple(axes), axis_types=kinds, abstract_device=device)


def shapes(length: int, heads: int, size: int, dtype: jnp.dtype = jnp.bfloat16) -> list[jax.ShapeDtypeStruct]:
    x = jax.ShapeDtypeStruct((2, length, heads, size), dtype)
    return [x, x, x, jax.ShapeDtypeStruct((2, length), jnp.int32)]
