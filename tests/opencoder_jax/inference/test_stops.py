"""Stop strings end a text at the first of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.inference.stops import cut


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("return 1\ndef g():\nclass A:", ("\nclass ", "\ndef "), ("return 1", True)),
        ("return 1", ("\ndef ",), ("return 1", False)),
        ("\ndef g", ("\ndef ",), ("", True)),
        ("aab", ("ab", "aab"), ("", True)),
        ("def f(): ...", (), ("def f(): ...", False)),
    ],
)
def test_the_first_stop_ends_the_text(text: str, stops: tuple[str, ...], expected: tuple[str, bool]) -> None:
    assert cut(text, stops) == expected


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_what_is_kept_holds_no_stop_and_begins_the_text(text: str, stops: list[str]) -> None:
    kept, stopped = cut(text, stops)
    assert text.startswith(kept)
    assert not any(stop in kept for stop in stops)
    assert stopped == any(stop in text for stop in stops) == (kept != text or "" in stops)
