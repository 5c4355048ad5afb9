"""What the room's tests share: the small tokenizer, an engine that follows a script, and the server around it."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import sentencepiece
from asgi_client import Client, running
from scripted_engine import ScriptedEngine

from opencoder_jax.serving.application import ServedModel, application
from opencoder_jax.serving.bridge import Bridge
from opencoder_jax.serving.config import ServeConfig
from opencoder_jax.tokenization.tokenizer import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, IM_END, IM_START, Tokenizer


def small_tokenizer(*controls: str) -> Tokenizer:
    """Bytes, a few pieces, and the control tokens."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["def add(a, b):", "    return a + b", "for i in range(10):", "    print(i)"] * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        pad_id=3,
        control_symbols=[IM_END, IM_START, *controls],
        add_dummy_prefix=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return Tokenizer(model.getvalue())


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture(scope="session")
def infilling_tokenizer() -> Tokenizer:
    return small_tokenizer(FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX)


@dataclass
class Scripted:
    """A server around a scripted engine, in-process."""

    tokenizer: Tokenizer
    config: ServeConfig = field(default_factory=ServeConfig)
    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    context: int = 256

    def __post_init__(self) -> None:
        self.engine = ScriptedEngine(self.tokenizer, context=self.context)
        self.bridge = Bridge(self.engine, self.config.waiting)
        model = ServedModel("small", self.tokenizer, self.context, 1700000000, "fp_0123456789ab")
        self.app = application(model, self.bridge, self.config, self.keys, self.hosts)
        self.client = Client(self.app)

    def run(self, talk: Callable[["Scripted"], Awaitable[None]]) -> None:
        """Talks to the server while it runs."""

        async def all_of_it() -> None:
            async with running(self.app):
                await talk(self)

        asyncio.run(all_of_it())


@pytest.fixture
def scripted(tokenizer: Tokenizer) -> Callable[..., Scripted]:
    """Makes such a server."""

    def make(**settings: Any) -> Scripted:
        return Scripted(settings.pop("tokenizer", tokenizer), **settings)

    return make
