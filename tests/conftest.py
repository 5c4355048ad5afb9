"""What holds for every test: the same examples in every run, and no recipe left bound for the next test."""

import os
from collections.abc import Iterator

import gin
import jax
import pytest
from hypothesis import settings

# Programs run on the CPU, whatever the machine has, and may be compiled for TPUs that it lacks: without asking the
# cloud which TPU this is, and in several processes at once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
# TensorFlow's greetings, where a test loads it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Many small programs are compiled and hardly run: XLA's older emitters for CPUs compile them in two thirds of the time. XLA
# reads its flags with the first program; libtpu, which reads them when it's loaded and ends the process at this one,
# and processes that tests start find them as they were.
_flags = os.environ.get("XLA_FLAGS")
os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {_flags or ''}"
jax.jit(lambda: 0)()
os.environ.pop("XLA_FLAGS") if _flags is None else os.environ.update(XLA_FLAGS=_flags)

# Deterministic examples: a test that fails fails again. No deadline: the machine may be busy, or compiling.
settings.register_profile("house", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _no_recipe_left_bound() -> Iterator[None]:
    yield
    gin.clear_config(clear_constants=True)
