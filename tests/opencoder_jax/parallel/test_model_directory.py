"""A model is read back from its directory as it was; what is missing or damaged is named."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract
from opencoder_jax.parallel import memory, model_directory
from opencoder_jax.parallel.checkpoints import Checkpoints, restore, verify
from opencoder_jax.parallel.model_directory import CHECKPOINTS, load, write_config
from opencoder_jax.parallel.verify import main
from opencoder_jax.recipe import UserError

CONFIG = ModelConfig(30, 2, 8, 2, 1, 4, 12, context=16, dtype="float32")


def parameters(value: float) -> Any:
    """Every weight of the model, counted upwards from a value."""
    shapes = nnx.to_pure_dict(abstract(CONFIG)[1])
    return jax.tree.map(lambda w: value + np.arange(w.size, dtype=np.float32).reshape(w.shape), shapes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with the checkpoints 2 and 10."""
    run = tmp_path_factory.mktemp("run")
    write_config(run, CONFIG)
    with Checkpoints(run / "checkpoints", keep=None) as checkpoints:
        for step in (2, 10):
            checkpoints.save(step, {"parameters": jax.tree.map(jnp.asarray, parameters(step))})
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.parametrize(("step", "found"), [(None, 10), (2, 2)])
def test_the_newest_checkpoint_or_the_one_asked_for(trained: Path, step: int | None, found: int) -> None:
    model = load(trained, step)
    assert (model.step, model.config) == (found, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(model.parameters), parameters(found))
    other = load(trained, 12 - found)
    assert (len(model.fingerprint), other.fingerprint == model.fingerprint) == (64, False)
    decoder = nnx.merge(model.graphdef, model.parameters)
    assert decoder(np.zeros((1, 3), np.int32), np.arange(3)[None]).shape == (1, 3, CONFIG.width)


def test_what_is_missing_is_named(run: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint of step 5; there are 2, 10"):
        load(run, 5)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint yet"):
        load(run)
    (run / "model.json").unlink()
    with pytest.raises(UserError, match=r"no model\.json"):
        load(run)
    with pytest.raises(UserError, match="nowhere: no such directory"):
        load(run / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"depth": 3}', '{"layers": 0}'])
def test_a_description_that_describes_no_model(run: Path, text: str) -> None:
    (run / "model.json").write_text(text)
    with pytest.raises(UserError, match=r"model\.json: (doesn't describe a model|not JSON)"):
        load(run)


def test_a_checkpoint_of_another_model(run: Path) -> None:
    write_config(run, dataclasses.replace(CONFIG, width=16))
    with pytest.raises(UserError, match=r"parameters\.embedding is \(30, 8\), where \(30, 16\) is wanted"):
        load(run)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_checkpoint(run: Path, damage: str) -> None:
    for file in (run / "checkpoints" / "10" / "parameters").rglob("*"):
        if file.is_file() and damage == "gone":
            file.unlink()
        elif file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match="checkpoints/10 is damaged"):
        load(run)
    assert load(run, 2).step == 2


@pytest.mark.parametrize("flips", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_a_flipped_bit_anywhere_is_seen_by_every_reader(flips: int, tmp_path: Path) -> None:
    """Also in what no reader needs: by inference, by going on, and by `verify`."""
    write_config(tmp_path, CONFIG)
    weights = jax.tree.map(jnp.asarray, parameters(0.5))
    with Checkpoints(tmp_path / CHECKPOINTS, keep=None) as checkpoints:
        checkpoints.save(10, {"parameters": weights, "optimizer": {"mean": weights}})
    verify(tmp_path / CHECKPOINTS, 10)
    files = sorted(path for path in (tmp_path / CHECKPOINTS / "10").rglob("*") if path.is_file())
    random = np.random.default_rng(0)
    readers = [
        lambda: load(tmp_path),
        lambda: restore(tmp_path / CHECKPOINTS, 10, {"parameters": weights, "optimizer": {"mean": weights}}),
        lambda: verify(tmp_path / CHECKPOINTS, 10),
        lambda: main([f"--checkpoint={tmp_path}"]),
    ]
    for number in range(flips):
        file = files[number % len(files)]
        whole = file.read_bytes()
        flipped = bytearray(whole)
        flipped[random.integers(len(flipped))] ^= 1 << random.integers(8)
        file.write_bytes(flipped)
        for read in readers:
            with pytest.raises(UserError, match="damaged"):
                read()
        file.write_bytes(whole)
    load(tmp_path)


def test_what_was_never_sealed_is_verified_by_its_checksums(run: Path) -> None:
    for seal in run.rglob("files-*"):
        seal.unlink()
    main([f"--checkpoint={run}"])
    checkpoint = run / CHECKPOINTS / "10"
    (table,) = (checkpoint / "parameters" / "d").iterdir()  # that is read; what it was merged from isn't
    whole = table.read_bytes()
    table.write_bytes(bytes(byte ^ (place % 50 == 0) for place, byte in enumerate(whole)))
    main([f"--checkpoint={run}", "--step=2"])
    with pytest.raises(UserError, match="damaged: 10; `train` goes on from the newest that is whole"):
        main([f"--checkpoint={run}"])
    table.write_bytes(whole)
    main([f"--checkpoint={run}"])
    (sums,) = (file for file in (checkpoint / "sums").iterdir() if b"embedding" in file.read_bytes())
    known = json.loads(sums.read_bytes())
    name = next(iter(known))
    sums.write_text(json.dumps(known | {name: known[name] ^ 1}))
    with pytest.raises(UserError, match=r"the checksum of .* is wrong"):
        verify(run / CHECKPOINTS, 10)


def test_a_model_larger_than_the_memory_is_refused_before_it_is_read(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemAvailable:    2 kB\n")
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(model_directory, "restore", lambda *_: pytest.fail("it was read"))
    with pytest.raises(UserError, match=r"weights take [\d.]+ GB, and 0.0 GB of CPU memory are free"):
        load(trained)


@pytest.mark.parametrize(("limit", "free"), [("max", 9216.0), ("5000", 4100.0), ("50000", 9216.0)])
def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, free: float) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemAvailable:    9 kB\n")
    texts = {"memory.max": limit, "memory.current": "1000", "memory.stat": "anon 900\ninactive_file 100"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_memory() == free
