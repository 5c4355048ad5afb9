"""What the kernels for Hopper share: warpgroups and their roles, matrix products by wgmma, and shared memory."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as mgpu
from jaxtyping import Array

from opencoder_jax.kernels.attention.shared.bounds import MASKED

ROWS = 64  # of a warpgroup: the rows of a wgmma's result
CONSUMERS = 2  # warpgroups that compute
TILE = CONSUMERS * ROWS  # rows of a program
# Of 65536 registers: 2 * 128 * 240 + 128 * 24 = 64512.
CONSUMER_REGISTERS, PRODUCER_REGISTERS = 240, 24
BY_ROW, BY_COLUMN = mgpu.Layout.WGMMA.reduce(1), mgpu.Layout.WGMMA.reduce(0)


def launch(body: Callable[..., None], interpret: Any, name: str, out_shape: list[Any], **options: Any) -> Any:
    """A kernel whose programs are CONSUMERS warpgroups that compute and one that loads."""
    return mgpu.kernel(
        body,
        out_type=out_shape,
        grid_names=("head", "tile", "row"),
        num_threads=CONSUMERS + 1,
        thread_name="warpgroup",
        kernel_name=name,
        compiler_params=mgpu.CompilerParams(approx_math=True, lowering_semantics=mgpu.LoweringSemantics.Lane),
        interpret=interpret,
        **options,
    )


# ---------------------------------------------------------------------------------------------- registers and products


class Product(NamedTuple):
    """A matrix product: total + a @ b, or a @ b.T."""

    a: Any  # in shared memory, or in registers
    b: Any  # in shared memory
    transposed: bool = False
    total: Array | None = None


def products(
    *wanted: Product,
    interpret: Any,
    started: Callable[[], None] = lambda: None,
    then: Callable[[Array], Any] = lambda x: x,
) -> tuple[Any, ...]:
    """Matrix products that run at once; calls `started` when they do, and `then` with the first as soon as it's there.

    Returns:
        What `then` gives, and the other products.
    """
    shapes = [(each.a.shape[0], each.b.shape[0 if each.transposed else 1]) for each in wanted]
    if interpret:  # the interpreter knows neither operands in registers nor transposed ones
        started()
        results = []
        for each in wanted:
            a = each.a if isinstance(each.a, jax.Array) else each.a[...]
            b = each.b[...].T if each.transposed else each.b[...]
            product = jnp.dot(a, b, preferred_element_type=jnp.float32)
            results.append(product if each.total is None else each.total + product)
        return then(results[0]), *results[1:]

    def run(*sums: Any) -> tuple[Any, ...]:
        for each, total in zip(wanted, sums, strict=True):
            if each.total is not None:
                total[...] = each.total
        for each, total in zip(wanted, sums, strict=True):
            mgpu.wgmma(total, each.a, mgpu.transpose_ref(each.b, (1, 0)) if each.transposed else each.b)
        started()
        first = then(mgpu.wgmma_accumulator_load(sums[0], wait_n=len(wanted) - 1))
        return first, *(total[...] for total in sums[1:])

    return pl.run_scoped(run, *(mgpu.ACC(shape, jnp.float32) for shape in shapes))


def cast(x: Array, layout: Any, interpret: Any) -> Array:
    """Says how an array lies in registers; to be called right after it's made."""
    return x if interpret else mgpu.layout_cast(x, layout)


def zeros(size: int, interpret: Any) -> Array:
    """A sum of ROWS rows to start from."""
    return cast(jnp.zeros((ROWS, size), jnp.float32), mgpu.Layout.WGMMA, interpret)


def pair(ref: Any, layout: Any, interpret: Any, *slot: Array) -> tuple[Array, Array]:
    """Two rows of numbers from shared memory, of a slot if there are several."""
    return cast(ref[(*slot, 0)], layout, interpret), cast(ref[(*slot, 1)], layout, interpret)


def along(x: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Numbers, one a row (axis 0) or a column (axis 1), for each element of a matrix."""
    return jax.lax.broadcast_in_dim(x, shape, (axis,))


def masked_if(
    edge: Array, scores: Array, bounds: Callable[[], tuple[Array, Array, Array]], axis: int, interpret: Any
) -> Array:
    """Scores of queries along `axis`; if the block is at an edge, lowest where a query doesn't see a key.

    Args:
        bounds: gives the first and the last key that each query sees, and the first key of the scores.
    """

    def masked(scores: Array) -> Array:
        first, last, first_key = bounds()
        iota = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1 - axis)
        key = first_key + cast(iota, mgpu.Layout.WGMMA, interpret)
        first, last = (along(x, scores.shape, axis) for x in (first, last))
        return jnp.where((first <= key) & (key <= last), scores, MASKED)

    return jax.lax.cond(edge, masked, lambda scores: scores, scores)


# ------------------------------------------------------------------------------------------------------- shared memory


def matrix(rows: tuple[int, ...], like: Array) -> Any:
    """Room in shared memory for rows of D, laid out as wgmma reads them."""
    size = like.shape[3]
    piece = math.gcd(size, 64)
    transforms = (mgpu.TilingTransform((8, piece)), mgpu.SwizzleTransform(piece * like.dtype.itemsize))
    return mgpu.SMEM((*rows, size), like.dtype, transforms=transforms)


def barriers(count: int, arrivals: int = 1) -> Any:
    """Barriers that are passed when so many have arrived."""
    return mgpu.Barrier(num_arrivals=arrivals, num_barriers=count)


def load(loaded: Any, *copies: tuple[Any, Any]) -> None:
    """Starts copies from global to shared memory, each of which arrives at the barrier when it's done."""
    for source, target in copies:
        mgpu.copy_gmem_to_smem(source, target, loaded)


def store(*copies: tuple[Any, Any]) -> None:
    """Copies what this warpgroup wrote from shared to global memory, and waits for it."""
    mgpu.commit_smem()
    for source, target in copies:
        mgpu.copy_smem_to_gmem(source, target)
    mgpu.wait_smem_to_gmem(0)


def release(consumed: Any, interpret: Any) -> None:
    """Tells the producer that a slot may be loaded again."""
    if interpret:  # threads read there what wgmma reads on the GPU, which needs no fence
        mgpu.commit_smem()
    mgpu.barrier_arrive(consumed)


def produce(count: Array, stages: int, loads: Sequence[tuple[Callable[[Array, Array], None], Any]]) -> None:
    """The producer: loads each step as soon as its slot is free, and ends when all have been consumed.

    Args:
        loads: what loads a step (step, slot), and the barriers where the slot is released.
    """
    mgpu.set_max_registers(PRODUCER_REGISTERS, action="decrease")

    @pl.loop(0, count + stages)
    def _(step: Array) -> None:
        slot = jax.lax.rem(step, stages)
        for load, consumed in loads:

            @pl.when(step >= stages)
            def _(consumed: Any = consumed) -> None:
                mgpu.barrier_wait(consumed.at[slot])

            @pl.when(step < count)
            def _(load: Any = load) -> None:
                load(step, slot)


def loader_of_keys(
    ref: Any, smem: Any, loaded: Any, row: Array, kv_head: Array, begin: Array
) -> Callable[[Array, Array], None]:
    """What loads a step (step, slot) of keys or values; `begin` is the first block of as many keys as a slot holds."""

    def load(step: Array, slot: Array) -> None:
        keys = smem.shape[1]
        some = ref.at[row, pl.ds((begin + step) * keys, keys), kv_head]
        mgpu.copy_gmem_to_smem(some, smem.at[slot], loaded.at[slot])

    return load


def wait_ahead(loaded: Any, step: Array | int, count: Array, stages: int) -> None:
    """Waits for a step ahead of time, if there is one.

    Neither LLVM nor ptxas moves what an optimization_barrier before it holds across it: that is done while products
    run, and not put off until after they have been waited for.
    """

    @pl.when(step < count)
    def _() -> None:
        mgpu.barrier_wait(loaded.at[jax.lax.rem(step, stages)])
