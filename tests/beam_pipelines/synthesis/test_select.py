"""The algorithmic corpus: keywords select, whatever their case, and are counted."""

from collections.abc import Callable

import pyarrow as pa
import pytest

from opencoder_jax.beam_pipelines.core.documents import empty
from opencoder_jax.beam_pipelines.core.maps import Drop
from opencoder_jax.beam_pipelines.synthesis.select import Select, SelectConfig

Batch = Callable[..., pa.RecordBatch]


def test_documents_with_a_keyword_are_kept(batch: Batch) -> None:
    texts = ["# LeetCode 1\nclass Solution:\n", "x = 1", "def solution(n):", "", "define solution", "DEF SOLUTION"]
    result = Select(SelectConfig())(batch(*texts))
    assert result.table.column("text").to_pylist() == [texts[0], texts[2], texts[5]]
    assert result.drops == [Drop(row, "not_algorithmic") for row in (1, 3, 4)]
    assert result.counts == {"holds 'leetcode'": 1, "holds 'def solution'": 2, "holds 'class solution'": 1}
    assert Select(SelectConfig())(empty()).table.num_rows == 0


def test_a_keyword_is_no_pattern_and_may_be_of_any_alphabet(batch: Batch) -> None:
    result = Select(SelectConfig(keywords=("a.b", "LÖSUNG")))(batch("a.b", "axb", "die Lösung"))
    assert [drop.row for drop in result.drops] == [1]


def test_what_the_user_can_get_wrong() -> None:
    for keywords in ((), ("", "x")):
        with pytest.raises(ValueError, match="keywords needs at least one word, none of them empty"):
            SelectConfig(keywords=keywords)
