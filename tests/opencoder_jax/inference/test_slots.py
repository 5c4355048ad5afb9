"""What rows have in common is found, whoever has it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from opencoder_jax.inference.requests import Request
from opencoder_jax.inference.sampling import SamplingConfig
from opencoder_jax.inference.slots import WORTH_SHARING, OpenAnswer, Slots, common
from opencoder_jax.inference.stops import AnswerText, StopStrings

STEMS = [np.random.default_rng(stem).integers(0, 9, 300).astype(np.int32) for stem in range(3)]
held = st.builds(
    lambda stem, length, end: np.concatenate([STEMS[stem][:length], np.array(end, np.int32)]),
    st.integers(0, 2),
    st.sampled_from([0, 1, 63, 64, 100, 300]),
    st.lists(st.integers(0, 9), max_size=3),
)


def opened(prompt: np.ndarray) -> OpenAnswer:
    request = Request(tuple(prompt.tolist()), SamplingConfig(max_tokens=1))
    return OpenAnswer(0, request, AnswerText(StopStrings(())), prompt, np.zeros(1, np.uint32), len(prompt))


@settings(max_examples=50, deadline=None)
@given(st.lists(held, min_size=1, max_size=9))
def test_rows_are_alike_as_far_as_it_says(rows: list[np.ndarray]) -> None:
    slots = Slots(len(rows))
    slots.held = rows
    source, count = slots.alike()
    for row, (other, slots_alike) in enumerate(zip(source, count, strict=True)):
        assert other <= row
        assert slots_alike <= common(rows[other], rows[row])
        assert slots_alike == 0 or slots_alike >= WORTH_SHARING


def test_samples_of_a_prompt_are_alike_to_the_first_of_them() -> None:
    slots = Slots(5)
    tails = np.arange(5, dtype=np.int32)
    slots.held = [np.append(STEMS[0], tail) for tail in tails[:3]] + [STEMS[1], np.append(STEMS[1][:200], tails)]
    source, count = slots.alike()
    assert source.tolist() == [0, 0, 0, 3, 3]
    assert count.tolist() == [0, 300, 300, 0, 200]


@settings(max_examples=50, deadline=None)
@given(st.lists(held, min_size=1, max_size=9), held.filter(len))
def test_the_row_that_has_read_most_of_a_prompt_is_found(rows: list[np.ndarray], prompt: np.ndarray) -> None:
    """But its last token, which is read when the next is drawn."""
    slots = Slots(len(rows))
    slots.held = rows
    row, count = slots.most_like(opened(prompt))
    assert count == max(common(each, prompt[:-1]) for each in rows)
    assert common(rows[row], prompt[:-1]) == count
