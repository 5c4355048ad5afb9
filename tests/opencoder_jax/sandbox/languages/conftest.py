"""One sandbox for programs of all languages."""

from collections.abc import Iterator

import pytest

from opencoder_jax.sandbox.languages.polyglot import Polyglot
from opencoder_jax.sandbox.pool import Sandbox
from opencoder_jax.sandbox.program import Limits


@pytest.fixture(scope="session")
def polyglot() -> Iterator[Polyglot]:
    limits = Limits(cpu_seconds=10, idle_seconds=20, memory_bytes=512 << 20, output_bytes=100_000)
    with Sandbox(limits, workers=2) as sandbox:
        if missing := [wall for wall in ("pid namespace", "read-only mounts") if sandbox.layers[wall] != "active"]:
            pytest.skip(f"no commands are run without {', '.join(missing)}")
        yield Polyglot(sandbox)
