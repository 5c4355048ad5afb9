"""The attention programs that attention_schedule.py compiles: ours, jax's splash attention and tokamax's.

Imported in a process of its own (kernels/schedule.py), tokamax's in an interpreter that has it: nothing here imports a
peer before it is asked for.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

TOPOLOGIES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
KINDS = {"v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5", "v6e": "TPU v6 lite"}
BLOCK, COMPUTE = 1024, 512  # the peers' blocks

Program = tuple[Callable[..., Any], list[jax.ShapeDtypeStruct]]


def abstract(chip: str, *shapes: tuple[tuple[int, ...], Any]) -> list[jax.ShapeDtypeStruct]:
    """Arrays of these shapes and dtypes on one chip."""
    options = {"chip_config_name": "megacore"} if chip == "v4" else {}
    device = topologies.get_topology_desc(TOPOLOGIES[chip], platform="tpu", **options).devices[0]
    return [jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device)) for shape, dtype in shapes]


def ours(chip: str, length: int, group: int, size: int, blocks: dict[str, Any] | None = None) -> Program:
    """Forward and backward of one row and one key head with `group` query heads."""
    from kernels.attention import tpu

    chosen = tpu.blocks_for(KINDS[chip], size, group)
    if blocks:
        chosen = chosen._replace(
            forward=chosen.forward._replace(**blocks.get("forward", {})),
            backward=chosen.backward._replace(**blocks.get("backward", {})),
        )

    def both(q: Any, k: Any, v: Any, positions: Any, d_out: Any) -> Any:
        out, back = jax.vjp(lambda *x: tpu.attention(x[0], x[1], x[2], positions, blocks=chosen), q, k, v)
        return out, back(d_out)

    q, k = ((1, length, group, size), jnp.bfloat16), ((1, length, 1, size), jnp.bfloat16)
    return both, abstract(chip, q, k, k, ((1, length), jnp.int32), q)


def splash(chip: str, length: int, group: int, size: int) -> Program:
    """jax's splash attention, causal, with segment ids; its fused backward at head size 128, two kernels at 160."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    fused = size % 128 == 0
    block = min(BLOCK, length)
    sizes = kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=COMPUTE,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=COMPUTE,
        block_q_dq=None if fused else block,
        block_kv_dq=None if fused else block,
        use_fused_bwd_kernel=fused,
    )
    mask = masks.MultiHeadMask([masks.CausalMask((length, length)) for _ in range(group)])
    call = kernel.make_splash_mqa(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1)
    return _with_gradient(lambda q, k, v, s: call(q, k, v, kernel.SegmentIds(s, s)), chip, length, group, size)


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


def documents(length: int, count: int) -> np.ndarray:
    """Positions of a row of `count` documents of about equal lengths."""
    ends = np.linspace(0, length, count + 1).astype(int)
    return np.concatenate([np.arange(n) for n in np.diff(ends)])[None].astype(np.int32)
