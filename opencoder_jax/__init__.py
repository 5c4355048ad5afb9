"""The open cookbook for code language models, in JAX."""

__version__ = "0.1.0"
