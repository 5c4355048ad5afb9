"""What the TPU compiler expects the pieces of a step to take, one chip: `python -m tests.benchmarks.layer_estimates`.

The feed-forward with and without its barriers (decoder.py), and the loss beside one that computes its logits again in
the backward pass, both forward and backward. Milliseconds and the share of the chip's peak, from the compiler's own
cycle estimates; nothing is run. Rotary embedding and norms stand in the table of `python -m opencoder_jax compile`.
"""

import os
from collections.abc import Callable

from opencoder_jax.compile.compile import ENVIRONMENT

os.environ.update(ENVIRONMENT)

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from opencoder_jax.compile.chips import Topology
from opencoder_jax.compile.estimate import estimate
from opencoder_jax.compile.program.hlo import CompiledProgram
from opencoder_jax.model import decoder
from opencoder_jax.model.loss import cross_entropy

VOCABULARY = 96_640
# Chip, tokens, width and feed-forward width: OpenCoder-1.5B on v5e, 8B on v5p and v6e.
CASES = (("v5e:2x2", 4096, 2240, 6144), ("v5p:2x2x1", 8192, 4096, 14336), ("v6e:2x2", 8192, 4096, 14336))


def seconds(function: Callable[..., object], topology: Topology, *shapes: tuple[tuple[int, ...], type]) -> float:
    """Estimated, of a function and its gradient to all arguments that are floats."""
    name = f"{topology.name}:{'x'.join(map(str, topology.bounds))}"
    device = topologies.get_topology_desc(name, platform="tpu").devices[0]
    place = SingleDeviceSharding(device)
    arguments = [jax.ShapeDtypeStruct(shape, dtype, sharding=place) for shape, dtype in shapes]
    text = jax.jit(function).lower(*arguments).compile().as_text()
    return estimate(CompiledProgram(text), topology, [(0, 0, 0, 0)], {}).seconds


def feed_forward(barriers: bool) -> Callable[..., object]:
    """A layer's second half and its gradients, given the gradient of its output."""
    keep = decoder.barrier if barriers else lambda x: x
    keep_gradients = decoder.gradient_barrier if barriers else lambda x: x

    def forward(x: jax.Array, norm: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
        h = keep(decoder.rms_norm(x, norm, 1e-5))
        a, b = keep_gradients((decoder.project(h, gate), decoder.project(h, up)))
        return x + decoder.project(keep(jax.nn.silu(a) * b), down)

    def both(above: jax.Array, *inputs: jax.Array) -> object:
        result, back = jax.vjp(forward, *inputs)
        return result, back(above)

    return both


def loss(again: bool) -> Callable[..., object]:
    """The loss and its gradients; `again` computes the logits a second time, as jax.checkpoint does."""

    def plain(hidden: jax.Array, head: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
        def one(total: jax.Array, item: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            h, target, weight = item
            logits = jnp.einsum("tw,wv->tv", h, head.astype(h.dtype), preferred_element_type=jnp.float32)
            chosen = jnp.sum(jnp.where(jnp.arange(VOCABULARY) == target[:, None], logits, 0), axis=-1)
            return total + jnp.sum(weight * (jax.nn.logsumexp(logits, axis=-1) - chosen)), None

        items = tuple(x.reshape(-1, 1024, *x.shape[2:]) for x in (hidden, targets, mask))
        return jax.lax.scan(jax.checkpoint(one, prevent_cse=False), jnp.zeros(()), items)[0]

    def ours(*inputs: jax.Array) -> jax.Array:
        return cross_entropy(*inputs, chunk=1024)

    return jax.value_and_grad(plain if again else ours, argnums=(0, 1))


def main() -> None:
    """Prints a line a case."""
    print(f"{'chip':10} {'what':28} {'ms':>8} {'of peak':>8}")
    for name, tokens, width, inner in CASES:
        topology = Topology.parse(name)
        x, norm = ((tokens, width), jnp.bfloat16), ((width,), jnp.float32)
        wide, narrow = ((width, inner), jnp.bfloat16), ((inner, width), jnp.bfloat16)
        for barriers in (False, True):
            took = seconds(feed_forward(barriers), topology, x, x, norm, wide, wide, narrow)
            share = 18 * tokens * width * inner / topology.chip.peak / took
            print(
                f"{topology.name:10} {'feed-forward' + ' with barriers' * barriers:28} {1e3 * took:8.2f} {share:8.2f}",
                flush=True,
            )
        if topology.name == "v6e":  # jaxlib cannot print its loss: SparseCores take part in it
            continue
        hidden = ((1, tokens, width), jnp.bfloat16)
        head, ids, mask = ((width, VOCABULARY), jnp.float32), ((1, tokens), jnp.int32), ((1, tokens), jnp.float32)
        for again in (True, False):
            took = seconds(loss(again), topology, hidden, head, ids, mask)
            share = 6 * tokens * width * VOCABULARY / topology.chip.peak / took
            print(
                f"{topology.name:10} {'loss, logits again' if again else 'loss':28} {1e3 * took:8.2f} {share:8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
