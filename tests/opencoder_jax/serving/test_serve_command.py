"""python -m opencoder_jax serve: starts, answers, stops when told, and says in one line why it can't."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import openai
import pytest
from flax import nnx

from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract
from opencoder_jax.parallel.checkpoints import Checkpoints
from opencoder_jax.parallel.model_directory import write_config
from opencoder_jax.recipe import UserError
from opencoder_jax.serving.serve import main
from opencoder_jax.tokenization.tokenizer import Tokenizer

CONFIG = ModelConfig(300, 2, 16, 4, 2, 16, 24, context=256, dtype="float32")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """The directory of a run, with random weights."""
    run = tmp_path_factory.mktemp("run") / "small"
    run.mkdir()
    write_config(run, CONFIG)
    (run / "tokenizer.model").write_bytes(tokenizer.model)
    random = np.random.default_rng(0)
    weights = jax.tree.map(lambda w: jnp.asarray(random.normal(0, 0.5, w.shape), jnp.float32), abstract(CONFIG)[1])
    parameters = nnx.to_pure_dict(weights)
    with Checkpoints(run / "checkpoints", keep=None) as checkpoints:
        checkpoints.save(1, {"parameters": parameters})
    return run


@contextmanager
def serving(run: Path, cache: Path, *flags: str) -> Iterator[tuple["subprocess.Popen[str]", openai.OpenAI]]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "opencoder_jax", "serve", f"--checkpoint={run}", "--port=0", *flags]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("small: http://127.0.0.1:"), line or process.communicate()
        address = line.split()[1]
        with openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0, timeout=60) as client:
            yield process, client
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_server_from_start_to_end(run: Path, tmp_path: Path) -> None:
    with serving(run, tmp_path) as (process, client):
        said = client.completions.create(model="small", prompt="def add", max_tokens=8, temperature=0)
        engine = Engine.open(run)
        (offline,) = engine.generate([engine.tokenizer.encode("def add")], SamplingConfig(max_tokens=8))
        assert said.choices[0].text == offline.text
        seeded: Any = {"model": "small", "prompt": "def add", "max_tokens": 8, "seed": 5, "n": 3}
        samples = client.completions.create(**seeded)
        sampling = SamplingConfig(temperature=1.0, max_tokens=8, seed=5)
        wanted = engine.generate([engine.tokenizer.encode("def add")] * 3, sampling)
        assert [choice.text for choice in samples.choices] == [completion.text for completion in wanted]
        stream = client.completions.create(model="small", prompt="def add", max_tokens=200, stream=True)
        first = next(stream)
        process.send_signal(signal.SIGTERM)
        assert [part.choices[0].finish_reason for part in (first, *stream)][-1] in ("length", "stop")
        assert process.wait(60) == 0
    assert any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_second_start_compiles_nothing(run: Path, tmp_path: Path) -> None:
    """The programs of the first are there: not one is added."""
    for start in range(2):
        before = sorted(tmp_path.iterdir())
        with serving(run, tmp_path) as (process, client):
            begun = time.monotonic()
            client.completions.create(model="small", prompt="def add", max_tokens=8)
            took = time.monotonic() - begun
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
    assert [file.name for file in sorted(tmp_path.iterdir()) if file.suffix != ".atime"] == [
        file.name for file in before if file.suffix != ".atime"
    ]
    assert took < 3


def no_port(run: Path, tmp_path: Path) -> list[str]:
    taken = socket.create_server(("127.0.0.1", 0))
    PORTS.append(taken)
    return [f"--checkpoint={run}", f"--port={taken.getsockname()[1]}"]


PORTS: list[socket.socket] = []


def bad_keys(run: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "keys").write_text("# none\n")
    return [f"--checkpoint={run}", f"--api_key_file={tmp_path / 'keys'}"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (no_port, "take another by --port"),
        (bad_keys, "holds no API key"),
        (lambda run, tmp: [f"--checkpoint={run}", f"--api_key_file={tmp}/none"], "no such file of API keys"),
        (lambda run, tmp: [f"--checkpoint={tmp}", "--port=0"], r"no model\.json"),
        (lambda run, tmp: [f"--checkpoint={tmp}/none", "--port=0"], "no such directory"),
        (lambda run, tmp: [f"--checkpoint={run}", "--port=0", "--step=7"], "no checkpoint of step 7"),
        (lambda run, tmp: [f"--checkpoint={run}", "--port=70000"], "65535"),
        (lambda run, tmp: [f"--checkpoint={run}", "--port=0", "--host=no.such.host.invalid"], "--host"),
        (lambda run, tmp: [f"--checkpoint={run}", "--port=0", "--gin.ServeConfig.waiting=0"], "waiting=0"),
        (lambda run, tmp: [f"--checkpoint={run}", "--port=0", "--gin.ServeConfig.waiting=4"], "choices=128"),
        (lambda run, tmp: [f"--checkpoint={run}", "--prot=1"], "--port"),
    ],
)
def test_mistakes_are_one_line(run: Path, tmp_path: Path, flags: Callable[..., list[str]], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        main(flags(run, tmp_path))
    assert "\n" not in str(error.value)
    while PORTS:
        PORTS.pop().close()
