"""Tests of distillation train as those of training do: programs are compiled quickly, and once."""

from tests.opencoder_jax.training.conftest import _compile_quickly_and_once, compiled

__all__ = ["_compile_quickly_and_once", "compiled"]
