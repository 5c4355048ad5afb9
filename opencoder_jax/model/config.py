"""What a decoder's sizes are: one frozen dataclass, free of JAX, whose defaults are OpenCoder-1.5B.

The published sizes stand in gin_configs/models/, one file a model; a smaller model overrides a few of them.
"""

from dataclasses import dataclass

from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a decoder in the shape of Llama.

    RMSNorm, rotary embedding, grouped-query attention, SwiGLU, no biases, and a head that isn't tied to the embedding.
    The defaults are OpenCoder-1.5B (arXiv 2411.04905 table 4, and `config.json` of infly/OpenCoder-1.5B-Base).
    """

    vocab_size: int = 96_640
    layers: int = 24
    width: int = 2240
    heads: int = 14
    kv_heads: int = 14
    head_size: int = 160
    ffn_width: int = 6144
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    context: int = 4096  # the longest row, in tokens, that the model is meant for
    init_std: float = 0.02
    dtype: str = "bfloat16"  # of the computation; parameters, norms, softmax and loss are float32 always

    def __post_init__(self) -> None:
        for name in ("vocab_size", "layers", "width", "heads", "kv_heads", "head_size", "ffn_width", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("rope_theta", "norm_eps", "init_std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be above 0")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads}: must be a multiple of kv_heads={self.kv_heads}")
        if self.head_size % 2:
            raise ValueError(f"head_size={self.head_size}: must be even, the rotary embedding turns pairs")
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"dtype={self.dtype!r}: must be 'bfloat16' or 'float32'")

    def parameters(self) -> int:
        """The exact number of parameters, embedding and head included."""
        attention = self.width * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        feed_forward = 3 * self.width * self.ffn_width
        norms = 2 * self.width
        return 2 * self.vocab_size * self.width + self.layers * (attention + feed_forward + norms) + self.width
