"""What the room's tests share: the small tokenizer of the room of data."""

from tests.opencoder_jax.data.conftest import tokenizer

__all__ = ["tokenizer"]
