"""Cycles counted from schedules."""

import numpy as np
import pytest

from opencoder_jax.kernels.attention.tpu import cycles
from opencoder_jax.kernels.attention.tpu.blocks import BackwardBlocks, ForwardBlocks
from opencoder_jax.kernels.schedule import Body, Schedule

FORWARD = ForwardBlocks(rows=512, keys=512, edge=256, edge_queries=1024, chunk=256, transposed=False)
BACKWARD = BackwardBlocks(queries=512, keys=512, edge_queries=256, edge_keys=256)


def schedule(*bodies: tuple[int, int]) -> Schedule:
    """Bodies of (cycles, slots of the matrix unit)."""
    units = {"MATMUL": 4, "VALU": 4, "VSTORE:SPILL": 1}
    used = [{"MATMUL": slots, "VALU": 0, "VSTORE:SPILL": 0} for _, slots in bodies]
    return Schedule("kernel", tuple(Body(n, use, units) for (n, _), use in zip(bodies, used, strict=True)))


def test_bodies_count_as_often_as_they_run() -> None:
    """1024 tokens of one document: two blocks of 512 queries, the second with one unmasked block of 512 keys."""
    both = (
        schedule((1, 0), (1_000, 0), (10_000, 9), (1_000_000, 9), (2_000, 0)),
        schedule((1, 0), (100, 0), (1_000, 0), *[(100_000, 9)] * 2, (10_000_000, 9), (200, 0), (2_000, 0)),
    )
    got = cycles.estimate(both, 1, FORWARD, BACKWARD, cycles.documents(1024, 1))
    # Each diagonal block is two steps of 256 keys.
    assert got.forward == 2 * (1 + 1_000 + 2_000) + 4 * 10_000 + 1 * 1_000_000
    tiled = FORWARD._replace(edge_queries=256)
    bodies = both[0].bodies
    both = (Schedule("kernel", (*bodies[:2], bodies[2], *bodies[2:])), both[1])
    # Of the four tiles of 256 by 256 one is wholly above the diagonal.
    assert cycles.estimate(both, 1, tiled, BACKWARD, cycles.documents(1024, 1)).forward == got.forward + 2 * 10_000
    # Each diagonal block is 3 tiles of 256 by 256 that aren't wholly above the diagonal.
    assert got.backward == 300 + 2 * (1 + 3_000) + 6 * 100_000 + 10_000_000


def test_documents_that_end_with_blocks_leave_only_diagonals() -> None:
    both = (
        schedule((200, 0), (1_000, 9), (50_000, 9), (200, 0)),
        schedule((200, 0), (300, 0), (1_000, 9), (50_000, 9), (200, 0)),
    )
    got = cycles.estimate(both, 1, FORWARD, BACKWARD, cycles.documents(2048, 4))
    assert got.forward == 4 * 400 + 8 * 1_000
    assert got.backward == 400 + 4 * 300 + 12 * 1_000


def test_heads_that_share_keys_share_what_is_done_once_a_block_of_keys() -> None:
    """A head clears and writes its own sum and turns every block of keys; the blocks' sums are the group's."""
    forward = schedule((200, 0), (1_000, 9), (50_000, 9), (200, 0))
    backward = schedule((100, 0), (5_000, 0), (300, 0), (1_000, 9), (50_000, 9), (200, 0), (7_000, 0))
    shared = FORWARD._replace(rows=2048)
    got = cycles.estimate((forward, backward), 4, shared, BACKWARD, cycles.documents(2048, 4))
    assert got.backward == 300 + 4 * 300 + 4 * 12_000 / 4 + 12 * 1_000


@pytest.mark.parametrize("count", [1, 3, 7])
def test_pairs_counted_as_seen_are_those_that_see_each_other(count: int) -> None:
    positions = cycles.documents(512, count)
    slots = np.arange(512)
    pairs = ((slots - positions[0])[:, None] <= slots) & (slots <= slots[:, None])
    blocks = pairs.reshape(8, 64, 4, 128).swapaxes(1, 2)
    seen, full = cycles.visible(positions, 64, 128)
    np.testing.assert_array_equal(seen, blocks.any((2, 3)))
    np.testing.assert_array_equal(full, blocks.all((2, 3)))
