"""Where our kernels for CPUs come from: compiled once, and done without where that can't be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opencoder_jax.kernels.attention.cpu import library
from opencoder_jax.kernels.attention.rows import cpu_kernels
from opencoder_jax.machine import user_cache

# An engine of the benchmark's kind answers; prints whether it had our kernels, and what it said.
ANSWERS = """
import jax, jax.numpy as jnp, numpy as np
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.kernels.attention.rows import cpu_kernels
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract
from opencoder_jax.parallel.model_directory import LoadedModel
from tests.benchmarks.engine import NoText

config = ModelConfig(300, 2, 32, 4, 2, 16, 48, context=256, dtype="float32")
graphdef, shapes = abstract(config)
random = np.random.default_rng(0)
state = jax.tree.map(lambda w: jnp.asarray(random.normal(0, 0.5, w.shape), jnp.float32), shapes)
engine = Engine(LoadedModel(config, graphdef, state, 0), NoText(300))
prompts = [random.integers(4, 290, length).tolist() for length in (3, 60, 9)]
print(cpu_kernels(), [each.tokens for each in engine.generate(prompts, SamplingConfig(max_tokens=20))])
"""


@pytest.mark.parametrize("fails", [False, True], ids=["no compiler", "one that fails"])
def test_without_a_compiler_that_can_there_is_a_warning(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    if fails:
        (tmp_path / "c++").write_text("#!/bin/sh\necho unknown option >&2\nexit 1\n")
        (tmp_path / "c++").chmod(0o755)
    assert not library.loaded.__wrapped__()
    assert ("unknown option" if fails else "no C++ compiler") in caplog.text
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.skipif(not cpu_kernels(), reason="no C++ compiler, or no CPU")
def test_what_was_compiled_is_there_the_next_time(tmp_path: Path) -> None:
    kept = library.compiled(library.compiler() or "", user_cache("kernels"))
    (tmp_path / kept.name).write_bytes(b"kept")
    assert library.compiled(library.compiler() or "", tmp_path).read_bytes() == b"kept"


@pytest.mark.slow
@pytest.mark.skipif(not cpu_kernels(), reason="no C++ compiler, or no CPU")
def test_answers_are_the_same_without_our_kernels(tmp_path: Path) -> None:
    def said(**environment: str) -> str:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu", **environment}
        done = subprocess.run([sys.executable, "-c", ANSWERS], env=env, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1]

    had, answers = said().split(" ", 1)
    had_not, others = said(PATH=str(tmp_path), CXX="").split(" ", 1)
    assert (had, had_not) == ("True", "False")
    assert answers == others
