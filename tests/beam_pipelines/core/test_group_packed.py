"""A shuffle through files gives what Beam's own gives, and loses nothing of large or many values."""

from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.core.runner import BeamOptions
from opencoder_jax.beam_pipelines.core.shuffles import GroupPacked
from opencoder_jax.beam_pipelines.core.storage import Directory

ROWS = st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=20)), max_size=12)


def whole(element: tuple[int, list[bytes]]) -> tuple[int, list[bytes]]:
    return element[0], sorted(element[1])


@settings(max_examples=10)
@given(ROWS)
def test_values_are_grouped_as_by_the_runner(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("shuffle")
    expected: dict[int, list[bytes]] = {}
    for segment, packed in rows:
        expected.setdefault(segment, []).append(packed)
    with BeamOptions().pipeline(0.0) as pipeline:
        grouped = pipeline | beam.Create(rows) | beam.Reshuffle() | GroupPacked(Directory(str(folder)))
        assert_that(
            grouped | beam.Map(whole), equal_to([(segment, sorted(all_)) for segment, all_ in expected.items()])
        )
    assert sum(file.stat().st_size for file in folder.iterdir()) == sum(len(packed) for _, packed in rows)


@pytest.mark.slow
def test_threads_write_files_of_their_own(tmp_path: Path) -> None:
    rows = [(number % 16, number.to_bytes(4, "big") * 5000) for number in range(400)]
    with BeamOptions(("--direct_num_workers=2",)).pipeline(9.0, threads=True) as pipeline:
        grouped = pipeline | beam.Create(rows) | beam.Reshuffle() | GroupPacked(Directory(str(tmp_path)))
        found = grouped | beam.Map(lambda element: (element[0], sorted(value[:4] for value in element[1])))
        assert_that(
            found,
            equal_to([(segment, [rows[n][1][:4] for n in range(segment, 400, 16)]) for segment in range(16)]),
        )
