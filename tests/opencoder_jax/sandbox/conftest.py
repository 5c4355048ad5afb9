"""One sandbox for all the room's tests, and what a machine must have for some of them."""

from collections.abc import Callable, Iterator

import pytest

from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    limits = Limits(cpu_seconds=1, idle_seconds=3, memory_bytes=512 << 20, file_bytes=1 << 20, output_bytes=100_000)
    with Sandbox(limits, workers=2) as sandbox:
        yield sandbox


@pytest.fixture
def needs(sandbox: Sandbox) -> Callable[..., None]:
    """Skips a test, with the machine's reason, when none of the layers that it is about stands here."""

    def check(*layers: str) -> None:
        if all(sandbox.layers[layer] != "active" for layer in layers):
            pytest.skip("; ".join(f"{layer} {sandbox.layers[layer]}" for layer in layers))

    return check
