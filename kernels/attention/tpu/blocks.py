"""Block sizes of the TPU kernels: the table per chip, and how blocks are cut down to what a row needs."""

import json
import math
from pathlib import Path
from typing import NamedTuple

from opencoder_jax.kernels.attention.shared.block_tables import entry_for
from opencoder_jax.kernels.attention.tpu.tiles import LANES, padded

TABLE = Path(__file__).with_name("blocks.json")


class ForwardBlocks(NamedTuple):
    """Sizes of the forward kernel's blocks; all but `chunk` are multiples of 128."""

    rows: int  # a program's queries times the heads that share a key head
    keys: int  # keys in an unmasked step
    edge: int  # keys in a masked step; divides `keys`
    # Queries of a head in a tile of a masked step, skipped if they see no key of it. No tiles if a program has no more.
    edge_queries: int
    chunk: int  # rows whose scores are one matrix product; divides `rows`
    transposed: bool  # sums up the output as [D, rows]: cheaper if D isn't a multiple of the matrix unit's width


class BackwardBlocks(NamedTuple):
    """Sizes of the backward kernel's blocks, multiples of 128."""

    queries: int  # in an unmasked step
    keys: int  # of a program
    edge_queries: int  # in a masked step; divides `queries`
    edge_keys: int  # in a tile of a masked step; divides `keys`


class TpuBlocks(NamedTuple):
    """How the kernels run on one chip."""

    forward: ForwardBlocks
    backward: BackwardBlocks
    vmem: int  # MiB of a core


def kind_of(group: int) -> str:
    """The table's name for query heads with keys of their own, or for groups of them that share a key head."""
    return "shared" if group > 1 else "own"


def blocks_for(chip: str, head_size: int, group: int) -> TpuBlocks:
    """The table's block sizes for a chip (its device kind, "TPU v5 lite"), or those of "other" for an unknown chip.

    Args:
        head_size: D; the table holds the sizes up to which each entry is good.
        group: G, query heads that share a key head.
    """
    table = json.loads(TABLE.read_text())
    entry = table.get(chip, table["other"])
    found = entry_for(entry[kind_of(group)], head_size)
    return TpuBlocks(ForwardBlocks(**found["forward"]), BackwardBlocks(**found["backward"]), entry["vmem"])


def fitted(blocks: TpuBlocks, group: int, length: int, slots: int) -> TpuBlocks:
    """Block sizes that divide one another, in whose multiples rows of `length` queries and `slots` keys grow little."""
    forward, backward, vmem = blocks
    # A power of two of lanes, whatever the group: so many tokens divide a row that is a multiple of the larger blocks.
    tokens = _fitted(LANES << max(0, (forward.rows // group // LANES).bit_length() - 1), length)
    keys = _fitted(forward.keys, slots)
    forward = forward._replace(
        rows=tokens * group,
        keys=keys,
        edge=min(forward.edge, keys),
        edge_queries=math.gcd(forward.edge_queries, tokens),
        chunk=math.gcd(forward.chunk, tokens * group),
    )
    queries, keys = _fitted(backward.queries, length), _fitted(backward.keys, slots)
    backward = BackwardBlocks(queries, keys, min(backward.edge_queries, queries), min(backward.edge_keys, keys))
    return TpuBlocks(forward, backward, vmem)


def _fitted(block: int, length: int) -> int:
    """The block, halved until its multiples make a row longer by an eighth at most, or as little as those of 128 do."""
    while -(-length // block) * block > max(length * 9 // 8, padded(length)):
        block //= 2
    return block
