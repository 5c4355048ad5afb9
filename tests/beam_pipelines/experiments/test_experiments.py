"""Stages that tell arms apart: whole projects are held out, stars filter, and a spoiled text keeps its bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.experiments.hold_out import HoldOut, HoldOutConfig, project_of
from opencoder_jax.beam_pipelines.experiments.popular import Popular, PopularConfig
from opencoder_jax.beam_pipelines.experiments.shuffle_lines import ShuffleLines, ShuffleLinesConfig, shuffled


def test_every_release_of_a_project_goes_the_same_way_and_none_both(batch) -> None:
    names = [f"package{number}-{version}-py3-none-any" for number in range(60) for version in ("1.0", "2.1.3", "v3")]
    documents = batch(*({"text": "x", "repository": name} for name in names))
    parts = {}
    for part in ("train", "heldout"):
        result = HoldOut(HoldOutConfig(share=0.4, part=part))(documents)
        assert result.table.num_rows + len(result.drops) == documents.num_rows
        parts[part] = {project_of(name) for name in result.table.column("repository").to_pylist()}
    assert not parts["train"] & parts["heldout"]
    assert parts["train"] | parts["heldout"] == {f"package{number}" for number in range(60)}
    assert 12 <= len(parts["heldout"]) <= 36


@pytest.mark.parametrize(
    ("repository", "project"),
    [("more_itertools-10.1.0-py3-none-any", "more_itertools"), ("Flask-2.2.5", "flask"), ("owner/tool", "owner/tool")],
)
def test_a_project_is_a_name_without_its_version(repository, project) -> None:
    assert project_of(repository) == project


def test_a_wrong_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="no regular expression"):
        HoldOutConfig(version="(")


def test_few_stars_are_dropped_and_counted(batch) -> None:
    documents = batch({"text": "a", "stars": 4}, {"text": "b", "stars": 5, "path": "b.py"})
    result = Popular(PopularConfig(stars=5))(documents)
    assert result.table.column("text").to_pylist() == ["b"]
    assert [(drop.row, drop.reason) for drop in result.drops] == [(0, "few_stars")]


@given(st.lists(st.text("ab \t", max_size=4), max_size=30), st.floats(0, 1))
def test_a_spoiled_text_has_the_same_lines_and_no_more_than_its_share_moved(lines, share) -> None:
    text = "\n".join(lines)
    spoiled = shuffled(text, share, "seed")
    assert sorted(spoiled.split("\n")) == sorted(text.split("\n"))
    moved = sum(one != other for one, other in zip(spoiled.split("\n"), text.split("\n"), strict=True))
    assert moved <= round(share * len(text.split("\n")))
    assert spoiled == shuffled(text, share, "seed")


@given(st.lists(st.text("ab \t", max_size=9), max_size=9))
def test_words_change_places_within_their_lines(lines) -> None:
    text = "\n".join(lines)
    spoiled = shuffled(text, 1.0, "seed", words=True)
    for one, other in zip(spoiled.split("\n"), text.split("\n"), strict=True):
        assert sorted(one.split(" ")) == sorted(other.split(" "))


def test_half_of_the_lines_change_places(batch) -> None:
    text = "\n".join(map(str, range(1000)))
    result = ShuffleLines(ShuffleLinesConfig(share=0.5))(batch(text))
    lines = result.table.column("text").to_pylist()[0].split("\n")
    assert 450 <= sum(line != str(number) for number, line in enumerate(lines)) <= 500
    assert result.table.schema == batch(text).schema
