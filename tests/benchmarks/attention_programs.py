"""The programs that attention_schedule.py compiles beside ours: jax's splash attention and tokamax's.

Imported in a process of its own (kernels/schedule.py), tokamax's in an interpreter that has it: nothing here imports a
peer before it is asked for.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp

from opencoder_jax.kernels.attention.cycles import abstract
from opencoder_jax.kernels.attention.peers import BLOCK, COMPUTE, splash_of

Program = tuple[Callable[..., Any], list[jax.ShapeDtypeStruct]]


def splash(chip: str, length: int, group: int, size: int) -> Program:
    """jax's splash attention, causal, with segment ids; its fused backward at head size 128, two kernels at 160."""
    from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_kernel import SegmentIds

    call = splash_of(length, group, size)
    return _with_gradient(lambda q, k, v, s: call(q, k, v, SegmentIds(s, s)), chip, length, group, size)


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
