"""Meshes and hosts are put to the test by training on them, so this room has the fixtures of training's."""

from tests.opencoder_jax.training.conftest import _compile_quickly_and_once, compiled, data, tokenizer_model

__all__ = ["_compile_quickly_and_once", "compiled", "data", "tokenizer_model"]
