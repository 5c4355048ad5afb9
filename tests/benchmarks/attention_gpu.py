"""Attention on the GPU that this runs on: ours beside cuDNN's, jax's Triton kernel and tokamax's, in one run.

    python -m tests.benchmarks.attention_gpu [--shape=8B] [--tune]

It needs jax with CUDA, jaxtyping and numpy, and a checkout of this project; tokamax is measured where it's installed.
First our kernels' output and gradients are held to float32's plain formula, on rows of several documents, on this very
GPU; on Hopper both Triton's and those for Mosaic GPU (kernels/attention/gpu/hopper). Then, for each shape, everybody's
forward and backward pass by turns, so that a slow minute falls on all: medians, bfloat16, causal. TFLOP/s counts what
causal attention needs: forward 2 B H S^2 D (half of two products of matrices of 2 S^2 D a head), backward 2.5 times
that, whatever a kernel computes. "packed" is ours on rows of documents of some 1000 tokens, by the FLOPs of whole rows:
above its own line for one document as far as it skips blocks.

--tune times other blocks than the table's, and prints the fastest of each kernel as the table would hold them.
Where there is no GPU, `python -m tests.benchmarks.attention_gpu_compiled` says what compilers make of the kernels.
"""

import argparse
import dataclasses
import functools
import importlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from opencoder_jax.kernels.attention.gpu.blocks import GpuBlocks, TritonBlock, family_of, hopper_blocks, triton_blocks
from opencoder_jax.kernels.attention.gpu.hopper import attention as hopper
from opencoder_jax.kernels.attention.gpu.triton import attention as triton

# Rows, heads, key heads, head size, row length.
SHAPES = {
    "1.5B": (4, 14, 14, 160, 4096),
    "8B": (2, 32, 8, 128, 8192),
    "published": (4, 16, 16, 128, 4096),  # what other projects' tables show for an H100
    "64": (4, 32, 32, 64, 4096),
    "256": (2, 8, 8, 256, 4096),
}
DOCUMENT = 1000  # tokens, on average
ROUNDS, CALLS = 7, 10
Kernel = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def positions_of(rows: int, length: int, seed: int = 0) -> np.ndarray:
    """Of documents of exponentially distributed length."""
    random = np.random.default_rng(seed)
    starts = random.random((rows, length)) < 1 / DOCUMENT
    slots = np.arange(length)
    return (slots - np.maximum.accumulate(np.where(starts, slots, 0), axis=1)).astype(np.int32)


def one_document(rows: int, length: int) -> np.ndarray:
    """Positions of rows that are a document each."""
    return np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))


def ours(blocks: GpuBlocks[TritonBlock], positions: np.ndarray) -> Kernel:
    """Our kernels with these blocks."""
    return lambda q, k, v: triton.attention(q, k, v, jnp.asarray(positions), blocks=blocks)


def tokamax(implementation: str) -> Kernel:
    """Tokamax's, through Triton or Mosaic GPU."""
    module = importlib.import_module("tokamax")
    return functools.partial(module.dot_product_attention, is_causal=True, implementation=implementation)


def ours_for_hopper(positions: np.ndarray) -> Kernel:
    """Ours for Mosaic GPU, on rows of documents."""
    return lambda q, k, v: hopper.attention(q, k, v, jnp.asarray(positions), blocks=hopper_blocks(q.shape[3]))


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """cuDNN's, as jax.nn offers it. It can't tell documents apart: causal, one document a row."""
    return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")


def jax_triton(q: jax.Array, k: jax.Array, v: jax.Array, *, interpret: bool = False) -> jax.Array:
    """jax's kernel with its default blocks, or smaller where those don't fit; keys are copied for each query head."""
    from jax.experimental.pallas.ops.gpu import attention as module

    group = q.shape[2] // k.shape[2]
    k, v = (jnp.repeat(x, group, axis=2) for x in (k, v))
    sizes = module.BlockSizes.get_default()
    if q.shape[3] > 128:
        sizes = dataclasses.replace(sizes, block_q=64, block_k=32)
    scale = q.shape[3] ** -0.5
    return module.mha(q, k, v, None, scale, causal=True, block_sizes=sizes, interpret=interpret)


def everybody(chip: str, shape: str) -> dict[str, Kernel]:
    """What is timed, by name."""
    rows, _, _, size, length = SHAPES[shape]
    blocks = triton_blocks(chip, size, "bfloat16")
    kernels: dict[str, Kernel] = {
        "ours": ours(blocks, one_document(rows, length)),
        "ours, packed": ours(blocks, positions_of(rows, length)),
    }
    if family_of(chip) == "Hopper":
        kernels["ours for Hopper"] = ours_for_hopper(one_document(rows, length))
        kernels["ours for Hopper, packed"] = ours_for_hopper(positions_of(rows, length))
    kernels |= {"cuDNN": cudnn, "jax Triton": jax_triton}
    for name in ("triton", "mosaic"):
        try:
            kernels[f"tokamax {name}"] = tokamax(name)
        except ImportError as error:
            print(f"tokamax {name} is left out: {error}", file=sys.stderr)
    return kernels


def inputs_of(shape: tuple[int, ...], dtype: str = "bfloat16") -> list[jax.Array]:
    """q, k, v and the gradient of the output."""
    rows, heads, kv_heads, size, length = shape
    keys = jax.random.split(jax.random.key(0), 4)
    return [
        jax.random.normal(key, (rows, length, count, size), dtype)
        for key, count in zip(keys, (heads, kv_heads, kv_heads, heads), strict=True)
    ]


# ---------------------------------------------------------------------------------------------------------- correctness


def plain(q: jax.Array, k: jax.Array, v: jax.Array, positions: np.ndarray) -> jax.Array:
    """The formula in float32, all scores at once."""
    slots = np.arange(q.shape[1])
    seen = ((slots - positions)[:, :, None] <= slots) & (slots <= slots[:, None])
    group = q.shape[2] // k.shape[2]
    k, v = (jnp.repeat(x, group, axis=2) for x in (k, v))
    product = functools.partial(jnp.einsum, precision="highest")
    scores = jnp.where(seen[:, None], product("bshd,bthd->bhst", q, k) * q.shape[3] ** -0.5, -jnp.inf)
    return product("bhst,bthd->bshd", jax.nn.softmax(scores), v)


def results(mix: Kernel, inputs: list[jax.Array], d_out: jax.Array) -> list[np.ndarray]:
    """Output and gradients."""
    out, back = jax.vjp(jax.jit(mix), *inputs)
    return [np.asarray(x, np.float64) for x in (out, *back(d_out))]


def errors(chip: str) -> bool:
    """Prints the largest errors relative to the largest value; returns whether all are as small as they must be."""
    good = True
    for size, dtype in itertools.product((64, 128, 160, 256), ("bfloat16", "float32")):
        *inputs, d_out = inputs_of((2, 4, 2, size, 1000), dtype)
        positions = positions_of(2, 1000) % 300
        exact = [x.astype("float32") for x in inputs]
        expected = results(functools.partial(plain, positions=positions), exact, d_out.astype("float32"))
        kernels = {"ours": ours(triton_blocks(chip, size, dtype), positions)}
        if family_of(chip) == "Hopper" and dtype == "bfloat16":
            kernels["ours for Hopper"] = ours_for_hopper(positions)
        bound = 1e-2 if dtype == "bfloat16" else 1e-5
        for name, mix in kernels.items():
            try:
                found = results(mix, inputs, d_out)
            except Exception as error:  # one that fails must not hide the other
                print(f"{name}, head size {size}, {dtype}, FAILS: {str(error).splitlines()[0][:160]}")
                good = False
                continue
            apart = [np.abs(got - want).max() / np.abs(want).max() for got, want in zip(found, expected, strict=True)]
            good &= bool(max(apart) < bound)
            named = ", ".join(f"{x} {error:.1e}" for x, error in zip(("out", "dq", "dk", "dv"), apart, strict=True))
            verdict = "below" if max(apart) < bound else "NOT BELOW"
            print(f"{name}, head size {size}, {dtype}: {named}; {verdict} {bound:.0e}")
    return good


# --------------------------------------------------------------------------------------------------------------- timing


def seconds(call: Callable[[], Any]) -> float:
    """Of one call, of so many that wait for one another on the GPU and not for Python."""
    began = time.perf_counter()
    for _ in range(CALLS):
        last = call()
    jax.block_until_ready(last)
    return (time.perf_counter() - began) / CALLS


def passes(kernel: Kernel, q: jax.Array, k: jax.Array, v: jax.Array, d_out: jax.Array) -> list[Callable[[], Any]]:
    """The forward pass, and the backward pass alone, both compiled and run once."""
    forward = jax.jit(kernel)
    _, back = jax.jit(lambda *x: jax.vjp(kernel, *x))(q, k, v)
    backward = jax.jit(lambda back, d_out: back(d_out))
    calls = [functools.partial(forward, q, k, v), functools.partial(backward, back, d_out)]
    for call in calls:
        jax.block_until_ready(call())
    return calls


def compare(chip: str, shape: str) -> None:
    """Prints a table of everybody on one shape."""
    rows, heads, kv_heads, size, length = SHAPES[shape]
    inputs = inputs_of(SHAPES[shape])
    calls = {}
    for name, kernel in everybody(chip, shape).items():
        try:
            calls[name] = passes(kernel, *inputs)
        except Exception as error:  # a peer that can't do a shape must not hide the others
            print(f"{name} can't: {str(error).splitlines()[0][:160]}")
    times: dict[str, list[list[float]]] = {name: [[], []] for name in calls}
    for _ in range(ROUNDS):
        for name, both in calls.items():
            for which, call in enumerate(both):
                times[name][which].append(seconds(call))
    flops = 2 * rows * heads * length**2 * size
    print(f"\n{shape}: {rows} rows of {length}, {heads} heads, {kv_heads} key heads of {size}")
    print("| | forward ms | TFLOP/s | backward ms | TFLOP/s |\n| --- | --- | --- | --- | --- |")
    for name, both in times.items():
        forward, backward = (statistics.median(found) for found in both)
        rates = flops / forward / 1e12, 2.5 * flops / backward / 1e12
        print(f"| {name} | {forward * 1e3:.3f} | {rates[0]:.0f} | {backward * 1e3:.3f} | {rates[1]:.0f} |")


def tune(chip: str, shape: str) -> None:
    """Tries blocks for one kernel at a time, and prints the fastest."""
    rows, _, _, size, length = SHAPES[shape]
    inputs = inputs_of(SHAPES[shape])
    best = triton_blocks(chip, size, "bfloat16")
    for kernel in GpuBlocks._fields:
        found = {}
        for sizes in itertools.product((16, 32, 64, 128), (32, 64, 128), (4, 8), (1, 2, 3, 4)):
            block = TritonBlock(*sizes)
            mix = ours(best._replace(**{kernel: block}), one_document(rows, length))
            try:
                call = passes(mix, *inputs)[0 if kernel == "forward" else 1]
            except Exception:  # more shared memory than there is: the compiler says so
                continue
            found[block] = min(seconds(call) for _ in range(3))
        fastest = min(found, key=found.__getitem__)
        best = best._replace(**{kernel: fastest})
        print(f'"{kernel}": {json.dumps(fastest._asdict())}  # {found[fastest] * 1e3:.3f} ms of the pass', flush=True)


def main() -> None:
    """Refuses to run without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, help="only this one")
    parser.add_argument("--tune", action="store_true", help="look for faster blocks instead of comparing")
    options = parser.parse_args()
    if jax.default_backend() != "gpu":
        sys.exit(
            f"no GPU here: JAX runs on {jax.devices()[0].device_kind}, and nothing was timed. On a machine with one: "
            "uv pip install 'jax[cuda13]' jaxtyping numpy; python -m tests.benchmarks.attention_gpu"
        )
    chip = jax.devices()[0].device_kind
    print(f"{chip}, jax {jax.__version__}")
    good = errors(chip)
    for shape in [options.shape] if options.shape else SHAPES:
        (tune if options.tune else compare)(chip, shape)
    if not good:
        sys.exit("our kernels' errors are too large on this GPU: the figures above are worth nothing")


if __name__ == "__main__":
    main()
