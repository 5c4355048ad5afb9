"""Links are shared by all groups of a collective: the fullest one sets the pace."""

from itertools import product

import pytest

from opencoder_jax.compile.chips import CHIPS, Topology
from opencoder_jax.compile.links import permute_seconds, rate

LINK = CHIPS["v5e"].link
Groups = list[list[tuple[int, ...]]]


def lines(text: str, axis: int, stride: int, count: int) -> Groups:
    """All groups of `count` chips that lie `stride` apart along a dimension, among them every chip of the slice."""
    bounds = Topology.parse(text).bounds
    starts = [at for at in product(*map(range, bounds)) if at[axis] // stride % count == 0]

    def moved(at: tuple[int, ...], by: int) -> tuple[int, ...]:
        return 0, *at[:axis], at[axis] + by, *at[axis + 1 :]

    return [[moved(at, n * stride) for n in range(count)] for at in starts]


@pytest.mark.parametrize(
    ("text", "stride", "count", "links"),
    [
        ("v5e:4x4", 1, 4, 1),  # a line: its last chip has one link
        ("v5e:4x4", 1, 2, 1),
        ("v5e:4x4", 2, 2, 1 / 2),  # two groups between the middle chips
        ("v5e:8x8", 4, 2, 1 / 4),
        ("v5e:16x16", 1, 16, 2),  # a ring
        ("v5e:16x16", 4, 4, 2 / 4),  # four groups around it
        ("v5e:16x16", 1, 4, 1),  # four groups beside each other
        ("v5e:16x16", 8, 2, 2 / 8),
    ],
)
def test_groups_that_lie_apart_share_links(text: str, stride: int, count: int, links: float) -> None:
    groups = lines(text, 1, stride, count)
    assert len(groups) * count == Topology.parse(text).size
    assert rate(Topology.parse(text), groups) == pytest.approx(links * LINK)


def test_dimensions_add_up_and_slices_meet_over_the_network() -> None:
    pod = Topology.parse("v5p:4x4x4")
    planes = [[(0, x, y, z) for x in range(4) for y in range(4)] for z in range(4)]
    assert rate(pod, planes) == 4 * pod.chip.link
    assert rate(pod, lines("v5p:4x4x4", 2, 1, 2)) == pod.chip.link
    assert rate(Topology.parse("v5e:4x4"), [[(0, x, y) for x in range(4) for y in range(4)]]) == 2 * LINK
    assert rate(Topology.parse("2*v5e:4x4"), [[(0, 0, 0), (1, 0, 0)]]) == CHIPS["v5e"].network


def test_permutes_take_the_shorter_way_and_share_links_too() -> None:
    slice16 = Topology.parse("v5e:16x16")
    shift = [((0, x, 0), (0, (x + 1) % 16, 0)) for x in range(16)]
    assert permute_seconds(slice16, shift, LINK) == pytest.approx(1)
    shift = [((0, x, 0), (0, (x + 4) % 16, 0)) for x in range(16)]
    assert permute_seconds(slice16, shift, LINK) == pytest.approx(4)
    there_and_back = [((0, 0, 0), (0, 15, 0)), ((0, 15, 0), (0, 0, 0))]
    assert permute_seconds(slice16, there_and_back, LINK) == pytest.approx(1)
