"""Texts in one buffer: what stands in a column of Arrow, wherever the column begins and ends."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.deduplication.texts import Texts


@given(st.lists(st.text(max_size=12), max_size=8), st.data())
def test_a_part_of_a_column_is_its_texts(texts: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(texts)))
    stop = data.draw(st.integers(first, len(texts)))
    found = Texts.of(pa.array(texts, pa.large_string())[first:stop])
    wanted = [text.encode() for text in texts[first:stop]]
    assert [bytes(found.text(number)) for number in range(len(found.offsets) - 1)] == wanted
    joined = Texts.join(wanted)
    assert found.offsets.tolist() == joined.offsets.tolist()
    assert bytes(found.data) == bytes(joined.data)


@pytest.mark.parametrize("size", range(20))
def test_zeros_follow_the_last_text(size: int) -> None:
    """Kernels read words of eight bytes, across the end."""
    data = Texts.join([b"x" * size]).data
    assert len(data) % 8 == 0
    assert len(data) >= size + 16
    assert not data[size:].any()
