"""An engine whose weights and cache are divided over eight devices answers as one on one device does."""

import json
import os
import subprocess
import sys

import pytest

EIGHT_DEVICES = """
import json
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract
from opencoder_jax.parallel.mesh import MeshConfig, make_mesh
from opencoder_jax.parallel.model_directory import LoadedModel
from tests.benchmarks.engine import NoText

assert jax.device_count() == 8
config = ModelConfig(300, 2, 32, 4, 2, 16, 48, context=256, dtype="float32")
graphdef, shapes = abstract(config)
random = np.random.default_rng(0)
state = jax.tree.map(lambda w: jnp.asarray(random.normal(0, 0.5, w.shape), jnp.float32), shapes)
prompts = [random.integers(4, 290, length).tolist() for length in (3, 60, 9)]
answers = []
for mesh in (None, make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2))):
    engine = Engine(LoadedModel(config, graphdef, state, 0), NoText(300), EngineConfig(rows=8), mesh)
    said = engine.generate(prompts, SamplingConfig(max_tokens=20))
    answers.append([answer.tokens for answer in said])
print(json.dumps(answers))
print(len(engine._weights.layers[0].gate.sharding.device_set))
"""


@pytest.mark.slow
def test_eight_devices_answer_as_one() -> None:
    environment = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers, devices = done.stdout.splitlines()[-2:]
    one, eight = json.loads(answers)
    assert eight == one
    assert int(devices) == 8
