"""What holds for every test: the same examples in every run, and no recipe left bound for the next test."""

import os
from collections.abc import Iterator

import gin
import pytest
from hypothesis import settings

from tests.quick import XLA_FLAGS

# Programs run on the CPU, whatever the machine has, and may be compiled for TPUs that it lacks: without asking the
# cloud which TPU this is, and in several processes at once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
# TensorFlow's greetings, where a test loads it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _compile_quickly() -> None:
    """XLA reads its flags with the first program. libtpu, which would end at ours, finds them as they were."""
    import jax  # not before the variables above are set

    jax.config.update("jax_disable_most_optimizations", True)
    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = f"{XLA_FLAGS} {before or ''}"
    jax.jit(lambda: 0)()
    if before is None:
        del os.environ["XLA_FLAGS"]
    else:
        os.environ["XLA_FLAGS"] = before


_compile_quickly()

# Deterministic examples: a test that fails fails again. No deadline: the machine may be busy, or compiling.
settings.register_profile("house", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _no_recipe_left_bound() -> Iterator[None]:
    yield
    gin.clear_config(clear_constants=True)
