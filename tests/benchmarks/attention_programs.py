"""The programs that attention_schedule.py compiles beside ours: jax's splash attention and tokamax's.

Imported in a process of its own (kernels/schedule.py), tokamax's in an interpreter that has it: nothing here imports a
peer before it is asked for.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp

from opencoder_jax.kernels.attention.tpu.cycles import abstract

BLOCK, COMPUTE = 1024, 512  # queries and keys of a block, and keys of it in one product
Program = tuple[Callable[..., Any], list[jax.ShapeDtypeStruct]]


def splash(chip: str, length: int, group: int, size: int) -> Program:
    """jax's splash attention, causal, with segment ids; its fused backward at head size 128, two kernels at 160."""
    return _with_gradient(splash_of(length, group, size), chip, length, group, size)


def splash_of(length: int, group: int, size: int, interpret: bool = False) -> Callable[..., jax.Array]:
    """`group` query heads on one key head's keys: (q [G, S, D], k [S, D], v [S, D], documents [S]) -> [G, S, D]."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    block, fused = min(length, BLOCK), size % 128 == 0
    compute = min(block, COMPUTE)
    sizes = kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=compute,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=compute,
        block_q_dq=None if fused else block,
        block_kv_dq=None if fused else block,
        use_fused_bwd_kernel=fused,
    )
    mask = masks.MultiHeadMask([masks.CausalMask((length, length)) for _ in range(group)])
    call = kernel.make_splash_mqa(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret)
    return lambda q, k, v, documents: call(q, k, v, kernel.SegmentIds(documents, documents))


def tokamax(chip: str, length: int, group: int, size: int, experimental: bool = False) -> Program:
    """tokamax's splash attention, causal, with segment ids and its fused backward."""
    folder = "tokamax._src.ops.experimental.tpu.splash_attention"
    kernel, masks = (import_module(f"{folder}.splash_attention_{part}") for part in ("kernel", "mask"))

    config = kernel.SplashConfig(
        block_q=BLOCK,
        block_kv=BLOCK,
        block_kv_compute=COMPUTE,
        block_q_dkv=BLOCK,
        block_kv_dkv=BLOCK,
        block_kv_dkv_compute=COMPUTE,
        use_experimental_scheduler=experimental,
    )
    call = kernel.make_splash_mqa_single_device(masks.CausalMask((length, length)), config=config)
    return _with_gradient(lambda q, k, v, s: call(q, k, v, kernel.SegmentIds(s, s)), chip, length, group, size)


def _with_gradient(call: Callable[..., Any], chip: str, length: int, group: int, size: int) -> Program:
    def both(q: Any, k: Any, v: Any, segments: Any, d_out: Any) -> Any:
        out, back = jax.vjp(lambda *x: call(*x, segments), q, k, v)
        return out, back(d_out)

    q, k = ((group, length, size), jnp.bfloat16), ((length, size), jnp.bfloat16)
    return both, abstract(chip, q, k, k, ((length,), jnp.int32), q)
