"""Kernels are interpreted here, block by block: they need no optimised code."""

from tests.opencoder_jax.training.conftest import _compile_quickly_and_once, compiled

__all__ = ["_compile_quickly_and_once", "compiled"]
