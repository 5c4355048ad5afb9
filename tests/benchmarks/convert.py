"""What converting a model takes: memory, time and disk, in the published shapes; and whether transformers agrees.

    python -m tests.benchmarks.convert --model=opencoder_1p5b --work=DIR     # random weights of that shape, both ways
    python -m tests.benchmarks.convert --peer=PYTHON --work=DIR              # logits of small models beside its own

Random bfloat16 weights are written to the disk, converted in and out by commands of their own, whose peak memory (the
largest resident set) is printed, and compared with what they were, byte for byte. With --peer, a Python that has torch
and transformers: models of several shapes go out to it, and others that it saved come in; the divergence of the next
token's distribution is printed, and the bytes are compared.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx

from opencoder_jax.exchange.export_model import export_model
from opencoder_jax.exchange.import_model import import_model
from opencoder_jax.exchange.safetensors_file import SafetensorsFolder, SafetensorsWriter
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoder import abstract
from opencoder_jax.model.huggingface import to_config, weights
from opencoder_jax.parallel.checkpoints import Checkpoints
from opencoder_jax.parallel.model_directory import CHECKPOINTS, load, write_config
from opencoder_jax.recipe import bind, build

SHAPES = {
    "one to one, head size 160": {"heads": 2, "kv_heads": 2, "head_size": 160},
    "grouped 4:1": {"heads": 8, "kv_heads": 2, "head_size": 16},
    "one key head, tied": {"heads": 4, "kv_heads": 1, "head_size": 16, "tied_head": True},
    "llama 3's rope": {"heads": 8, "kv_heads": 2, "head_size": 16, "rope_scaling": (8.0, 1.0, 4.0, 32)},
}
LENGTH = 96


def write_random(directory: Path, config: ModelConfig) -> None:
    """A Hugging Face folder of random bfloat16 weights, without a tokenizer."""
    directory.mkdir(parents=True)
    block = np.random.default_rng(0).normal(0, 0.02, 1 << 23).astype(ml_dtypes.bfloat16)
    tensors = {name: ("bfloat16", weight.theirs) for weight in weights(config) for name in weight.names}
    with SafetensorsWriter(directory, tensors) as writer:
        for number, (name, (_, shape)) in enumerate(tensors.items()):
            row = int(np.prod(shape[1:]))
            rows = max(1, len(block) // row - 1)
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start)
                offset = (number * 7919 + start) % (len(block) - count * row)
                writer.write(name, block[offset : offset + count * row].reshape(count, *shape[1:]), start)
    (directory / "config.json").write_text(json.dumps(to_config(config, "bfloat16")))


def digest(directory: Path) -> str:
    """Of all tensors, by their names."""
    tensors, found = SafetensorsFolder(directory), hashlib.sha256()
    for name in sorted(tensors.shapes):
        rows = max(1, (64 << 20) // int(np.prod((2, *tensors.shapes[name][1:]))))
        for start in range(0, tensors.shapes[name][0], rows):
            found.update(tensors.read(name, start, start + rows).tobytes())
    return found.hexdigest()


def measured(flags: list[str]) -> str:
    """Runs `convert` with the flags; its seconds, and the peak of its memory."""
    command = [sys.executable, "-m", "opencoder_jax", "convert", *flags]
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: failed")
    return f"{time.monotonic() - begin:6.0f} s, {usage.ru_maxrss / 1e6:.2f} GB at the peak"


def size(directory: Path) -> float:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) / 1e9


def memory(model: str, layers: int | None, work: Path) -> None:
    """Converts random weights of a published shape in and out."""
    bind([f"gin_configs/models/{model}.gin"])
    config = build(ModelConfig)
    if layers:
        config = dataclasses.replace(config, layers=layers)
    theirs, ours, again = (work / name for name in ("theirs", "ours", "again"))
    write_random(theirs, config)
    was = digest(theirs)
    print(
        f"{model}, {config.layers} layers: {config.parameters():,} parameters, {size(theirs):.1f} GB in bfloat16",
        flush=True,
    )
    print(f"  in:  {measured([f'--from={theirs}', f'--to={ours}'])}; {size(ours):.1f} GB of checkpoint", flush=True)
    shutil.rmtree(theirs)
    print(f"  out: {measured([f'--from={ours}', f'--to={again}'])}", flush=True)
    print(f"  the same bytes: {digest(again) == was}")
    for directory in (ours, again):
        shutil.rmtree(directory)


PEER = """
import json, sys
import numpy as np, torch, transformers
out, back, tokens, config, dtype = sys.argv[1:]
ids = torch.tensor(np.load(tokens))
def log(model):
    with torch.no_grad():
        return torch.log_softmax(model.float()(ids).logits.double(), -1).numpy()
np.save(out + "/log.npy", log(transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)))
torch.manual_seed(1)
model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(config))
for parameter in model.parameters():
    parameter.data.normal_(0, 0.2)
model.to(getattr(torch, dtype)).save_pretrained(back, max_shard_size="40KB")
np.save(back + "/log.npy", log(model))
"""


def divergence(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest KL divergence of a position, either way."""
    one, other = (np.exp(theirs) * (theirs - ours)).sum(-1), (np.exp(ours) * (ours - theirs)).sum(-1)
    return float(max(one.max(), other.max()))


def log_probabilities(directory: Path, tokens: np.ndarray) -> np.ndarray:
    model = load(directory)

    @jax.jit
    def logits(state: Any) -> jax.Array:
        decoder = nnx.merge(model.graphdef, state)
        return decoder(tokens, jnp.arange(tokens.shape[1])[None].repeat(len(tokens), 0)) @ decoder.to_logits

    found = np.asarray(logits(model.parameters), np.float64)
    return found - np.logaddexp.reduce(found, axis=-1, keepdims=True)


def agreement(peer: str, work: Path) -> None:
    """Small models, out to transformers and in from it."""
    random = np.random.default_rng(0)
    for dtype, (name, sizes) in zip(("float32", "bfloat16", "float16", "bfloat16"), SHAPES.items(), strict=True):
        config = ModelConfig(
            **{"vocab_size": 512, "layers": 2, "width": 64, "ffn_width": 96, "context": 128, "dtype": "float32"} | sizes
        )
        place = work / name.split(",")[0].replace(" ", "_")
        run, out, back = (place / each for each in ("run", "out", "back"))
        run.mkdir(parents=True)
        write_config(run, config)
        draw: Callable[[Any], jax.Array] = lambda leaf: jnp.asarray(random.normal(0, 0.2, leaf.shape), jnp.float32)  # noqa: E731
        with Checkpoints(run / CHECKPOINTS, keep=None) as checkpoints:
            checkpoints.save(0, {"parameters": jax.tree.map(draw, nnx.to_pure_dict(abstract(config)[1]))})
        export_model(run, out)
        back.mkdir()
        tokens = random.integers(0, 512, (2, LENGTH))
        np.save(place / "tokens.npy", tokens)
        arguments = [str(out), str(back), str(place / "tokens.npy"), str(out), dtype]
        subprocess.run([peer, "-c", PEER, *arguments], check=True, stderr=subprocess.DEVNULL)
        going = divergence(log_probabilities(run, tokens), np.load(out / "log.npy"))
        import_model(back, place / "in", "float32")
        coming = divergence(log_probabilities(place / "in", tokens), np.load(back / "log.npy"))
        export_model(place / "in", place / "again")
        same = digest(place / "again") == digest(back)
        print(
            f"{name:28} out: KL {going:.1e}; in from {dtype}: KL {coming:.1e}; the same bytes again: {same}", flush=True
        )
        shutil.rmtree(place)


def main() -> None:
    """Prints one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a file of gin_configs/models, without its ending")
    parser.add_argument("--layers", type=int, help="fewer than it has, where time or disk is short")
    parser.add_argument("--peer", help="a Python with torch and transformers")
    parser.add_argument("--work", required=True, type=Path, help="a directory to work in; it is emptied again")
    flags = parser.parse_args()
    if flags.model:
        memory(flags.model, flags.layers, flags.work)
    if flags.peer:
        agreement(flags.peer, flags.work)


if __name__ == "__main__":
    main()
