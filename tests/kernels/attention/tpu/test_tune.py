"""Block sizes chosen by what they cost, and the table that they are written into."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencoder_jax.kernels.attention.tpu import cycles, tune
from opencoder_jax.kernels.attention.tpu.blocks import TABLE, BackwardBlocks, ForwardBlocks, blocks_for
from opencoder_jax.kernels.attention.tpu.cycles import Cycles

FORWARD = ForwardBlocks(rows=512, keys=512, edge=256, edge_queries=1024, chunk=256, transposed=False)
BACKWARD = BackwardBlocks(queries=512, keys=512, edge_queries=256, edge_keys=256)


def test_the_cheapest_of_each_is_chosen_and_what_fails_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def pairs() -> Iterator[tuple[ForwardBlocks, BackwardBlocks]]:
        for rows, queries in ((512, 1024), (1024, 256), (2048, 512)):
            yield FORWARD._replace(rows=rows), BACKWARD._replace(queries=queries)

    def measure(forward: ForwardBlocks, backward: BackwardBlocks) -> Cycles:
        if forward.rows == 2048:
            raise RuntimeError("too much VMEM")
        return Cycles(forward.rows, backward.queries)

    forward, backward = tune.choose(pairs(), measure)
    assert (forward.rows, backward.queries) == (512, 256)
    assert "too much VMEM" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no candidate"):
        tune.choose(iter(()), measure)


def test_a_choice_is_written_for_its_chip_and_sizes_alone(tmp_path: Path) -> None:
    table = tmp_path / "blocks.json"
    table.write_text(TABLE.read_text())
    tune.write("v5e", 128, 4, (FORWARD, BACKWARD), table)
    before, after = json.loads(TABLE.read_text()), json.loads(table.read_text())
    entry = after["TPU v5 lite"]["shared"].pop("128")
    assert (ForwardBlocks(**entry["forward"]), BackwardBlocks(**entry["backward"])) == (FORWARD, BACKWARD)
    before["TPU v5 lite"]["shared"].pop("128")
    assert before == after


@pytest.mark.parametrize("chip", [*cycles.KINDS.values(), "TPU of another day"])
@pytest.mark.parametrize("group", [1, 4])
def test_the_tables_sizes_divide_one_another(chip: str, group: int) -> None:
    for size in (64, 128, 160, 256):
        forward, backward, _ = blocks_for(chip, size, group)
        assert forward.rows % forward.chunk == forward.keys % forward.edge == forward.edge % 128 == 0
        assert backward.queries % backward.edge_queries == backward.keys % backward.edge_keys == 0
    with pytest.raises(ValueError, match="the largest is 256"):
        blocks_for(chip, 264, group)
