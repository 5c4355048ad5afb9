"""The cookbook's steps compile for longer than they run here, and eight of them the same programs."""

from tests.opencoder_jax.training.conftest import _compile_quickly_and_once, compiled

__all__ = ["_compile_quickly_and_once", "compiled"]
