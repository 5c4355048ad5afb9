"""A server that speaks OpenAI's protocol, as something that answers prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from opencoder_jax.clients.openai_client import OpenAIClient
from opencoder_jax.evaluation.generate import Prompt
from opencoder_jax.evaluation.model import Model
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.recipe import build

# What protocol has no word for; servers of ours and vLLM's take them, others would refuse them where they are set.
_OTHERS = ("top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class _ServedAnswer:
    text: str
    finish_reason: str | None
    tokens: Sequence[int]


def open_server(url: str, name: str, at_once: int) -> Model:
    """A model behind a server.

    Raises:
        UserError: the server isn't there, or has no such model.
    """
    sampling = build(SamplingConfig)
    settings: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    plain = SamplingConfig()
    settings |= {key: getattr(sampling, key) for key in _OTHERS if getattr(sampling, key) != getattr(plain, key)}
    client = OpenAIClient(url, name, settings)

    def generate(
        prompts: Sequence[Prompt], stops: Sequence[str], seeds: Sequence[int]
    ) -> Iterator[tuple[int, _ServedAnswer]]:
        for number, reply in client.answers(prompts, stops, [{"seed": seed} for seed in seeds], at_once):
            yield number, _ServedAnswer(reply.text, reply.finish_reason, range(reply.tokens))

    about = {"server": client.url, "model": client.model, "sampling": settings | {"seed": sampling.seed}}
    return Model(generate, sampling.seed, about)
