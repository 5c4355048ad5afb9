"""Packed columns: nothing is lost in segments, and components are those of a plain union-find."""

import random
from collections import Counter
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.core.shuffles import (
    NODE,
    SpanningForest,
    by_segment,
    pack,
    run_starts,
    sort_rows,
    spanning_stars,
    star_edges,
    unpack,
)

WORD = st.integers(0, 3) | st.integers(0, 2**64 - 1)


def tables(columns: int, rows: int = 30) -> st.SearchStrategy[np.ndarray]:
    row = st.lists(WORD, min_size=columns, max_size=columns)
    return st.lists(row, max_size=rows).map(lambda rows: np.array(rows, np.uint64).reshape(-1, columns))


@given(tables(3))
def test_rows_unpack_to_what_was_packed(table: np.ndarray) -> None:
    assert unpack([pack(table[:4]), pack(table[4:])], 3).tolist() == table.tolist()
    assert pack(np.array([[1, 2]], ">u8")) == b"\1" + b"\0" * 7 + b"\2" + b"\0" * 7  # whatever the machine


@given(tables(2), st.sampled_from([1, 2, 8, 1024]))
def test_segments_lose_nothing_and_follow_the_top_bits(table: np.ndarray, segments: int) -> None:
    found = [(segment, unpack([packed], 2)) for segment, packed in by_segment(table, table[:, 0], segments)]
    assert len({segment for segment, _ in found}) == len(found)
    assert Counter(tuple(row) for _, rows in found for row in rows.tolist()) == Counter(map(tuple, table.tolist()))
    for segment, rows in found:
        assert {hash_ * segments >> 64 for hash_ in rows[:, 0].tolist()} == {segment}


@given(tables(3))
def test_sorted_rows_and_their_runs(table: np.ndarray) -> None:
    ordered = sort_rows(table)
    assert ordered.tolist() == sorted(table.tolist())
    assert run_starts(ordered).sum() == len({tuple(row) for row in table.tolist()})


def node(number: int) -> list[int]:
    """A node whose priority falls with its number in no simple way, and that is as unique as its address."""
    mixed = random.Random(number)
    return [mixed.randrange(3), mixed.randrange(2), mixed.randrange(2**64), number]


def components(edges: list[tuple[int, int]]) -> list[set[int]]:
    """Union-find, written plainly."""
    groups = {end: {end} for edge in edges for end in edge}
    for one, other in edges:
        if groups[one] is not groups[other]:
            groups[one] |= groups[other]
            for member in groups[other]:
                groups[member] = groups[one]
    return list({id(group): group for group in groups.values()}.values())


def stars(groups: list[set[int]]) -> set[tuple[int, int]]:
    """From the best of each group to each other one."""
    bests = [(min(group, key=node), group) for group in groups]
    return {(best, other) for best, group in bests for other in group - {best}}


def packed_edges(edges: list[tuple[int, int]]) -> np.ndarray:
    return np.array([[node(one), node(other)] for one, other in edges], np.uint64).reshape(-1, 2, NODE)


def as_numbers(edges: np.ndarray) -> set[tuple[int, int]]:
    found = [(int(edge[0, NODE - 1]), int(edge[1, NODE - 1])) for edge in edges]
    assert len(set(found)) == len(found)
    return set(found)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=40, unique_by=lambda row: row[1]))
def test_equal_keys_make_a_star_around_the_best(rows: list[tuple[int, int]]) -> None:
    table = np.array([[key, 7, *node(number)] for key, number in rows], np.uint64).reshape(-1, 2 + NODE)
    edges = [(one, other) for (key, one), (same, other) in combinations(rows, 2) if key == same]
    assert as_numbers(star_edges(table, 2)) == stars(components(edges))


EDGES = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=40)


@given(EDGES)
def test_stars_span_the_components(edges: list[tuple[int, int]]) -> None:
    assert as_numbers(spanning_stars(packed_edges(edges))) == stars(components(edges))


@settings(max_examples=60)
@given(EDGES, st.randoms(use_true_random=False))
def test_the_forest_does_not_depend_on_how_edges_are_split(edges: list[tuple[int, int]], chance: random.Random) -> None:
    forest = SpanningForest()
    whole = pack(spanning_stars(packed_edges(edges)).reshape(-1, 2 * NODE))

    accumulators = [forest.create_accumulator() for _ in range(4)]
    for edge in chance.sample(edges, len(edges)):
        chosen = chance.randrange(4)
        accumulators[chosen] = forest.add_input(accumulators[chosen], pack(packed_edges([edge]).reshape(1, -1)))
    chance.shuffle(accumulators)
    merged = forest.merge_accumulators([forest.merge_accumulators(accumulators[:2]), *accumulators[2:]])
    assert forest.extract_output(merged) == whole


def test_an_edge_that_many_workers_found_still_counts() -> None:
    """A sparse matrix adds up the weights of equal edges: 256 ones of a byte would be zero."""
    assert as_numbers(spanning_stars(packed_edges([(1, 2)] * 256))) == stars([{1, 2}])


def test_a_large_component_far_from_a_star() -> None:
    path = [(number, number + 1) for number in range(20_000)]
    random.Random(0).shuffle(path)
    assert as_numbers(spanning_stars(packed_edges(path))) == stars([set(range(20_001))])
