"""Models are asked a few things here, and what they say is no matter: they need no optimised code."""

from tests.opencoder_jax.training.conftest import _compile_quickly_and_once, compiled

__all__ = ["_compile_quickly_and_once", "compiled"]
