"""What holds for every test: the same examples in every run, and no recipe left bound for the next test."""

import os
from collections.abc import Iterator

import gin
import pytest
from hypothesis import settings

# TensorFlow's greetings, where a test loads it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Deterministic examples: a test that fails fails again. No deadline: the machine may be busy, or compiling.
settings.register_profile("house", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _no_recipe_left_bound() -> Iterator[None]:
    yield
    gin.clear_config(clear_constants=True)
