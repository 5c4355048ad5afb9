"""What a decoder's sizes are: one frozen dataclass, free of JAX, whose defaults are OpenCoder-1.5B.

The published sizes stand in gin_configs/models/, one file a model; a smaller model overrides a few of them.
"""

from dataclasses import dataclass

from opencoder_jax.checks import Requirement, above, at_least, check, one_of, or_none
from opencoder_jax.recipe import configurable


@configurable
@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a decoder in the shape of Llama.

    RMSNorm, rotary embedding, grouped-query attention, SwiGLU, no biases, and a head that may be the embedding itself.
    The defaults are OpenCoder-1.5B (arXiv 2411.04905 table 4, and `config.json` of infly/OpenCoder-1.5B-Base).

    Attributes:
        vocab_size: ids of the tokenizer.
        layers: each has attention and a feed-forward.
        width: of the stream that the layers add to.
        heads: of the queries.
        kv_heads: of the keys and values; each serves heads / kv_heads queries.
        head_size: of all of them; even, for the rotary embedding turns pairs.
        ffn_width: of the feed-forward.
        rope_theta: base of the rotary embedding's frequencies.
        norm_eps: added to the mean square in a norm.
        context: the longest row, in tokens, that the model is meant for.
        init_std: of the normal distribution that weights are drawn from.
        dtype: of the computation; parameters, norms, softmax and loss are float32 always.
        rope_scaling: as Llama 3's "llama3" in Hugging Face's `rope_scaling`: (factor, low_freq_factor,
            high_freq_factor, original_max_position_embeddings); None: the frequencies are as they are.
        tied_head: logits are made with the embedding; there is no head of its own.
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
    context: int = 4096
    init_std: float = 0.02
    dtype: str = "bfloat16"
    rope_scaling: tuple[float, float, float, int] | None = None
    tied_head: bool = False

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "layers", "width", "heads", "kv_heads", "head_size", "ffn_width", "context")
        check(self, **dict.fromkeys(sizes, at_least(1)), dtype=one_of("bfloat16", "float32"))
        check(self, rope_theta=above(0), norm_eps=above(0), init_std=above(0))
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads}: must be a multiple of kv_heads={self.kv_heads}")
        if self.head_size % 2:
            raise ValueError(f"head_size={self.head_size}: must be even, the rotary embedding turns pairs")
        scaling = Requirement(
            lambda four: min(four) > 0 and four[1] < four[2], "positive, the low frequency factor below the high one"
        )
        check(self, rope_scaling=or_none(scaling))

    def matrix_parameters(self) -> int:
        """How many weights a token is multiplied with: all but the embedding's and the norms'."""
        attention = self.width * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.ffn_width) + self.width * self.vocab_size

    def parameters(self) -> int:
        """The exact number of parameters, embedding and head included; a tied head counts once."""
        embedding = 0 if self.tied_head else self.vocab_size
        return self.matrix_parameters() + self.width * (embedding + 2 * self.layers + 1)
