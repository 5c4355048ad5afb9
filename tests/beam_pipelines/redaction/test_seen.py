"""What a text may hold: never denied where it's held, seldom claimed where it isn't."""

import re

from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.redaction.seen import Seen

LITERALS = ("a", "key", "token", "password", "作者", "©", "-----begin", "github_pat_", "x" * 40, "é€")


@given(st.lists(st.sampled_from([*LITERALS, " ", "to", "pass", "\ud800", "\0"])).map("".join))
def test_what_is_held_is_never_denied(text: str) -> None:
    assert {literal for literal in LITERALS if literal in text} <= set(Seen(text).among(LITERALS))


def test_little_is_claimed_that_is_not_held() -> None:
    words = tuple(f"literal-{number:05d}" for number in range(1000))
    text = "".join(f"def f{number}(x): return x + {number}\n" for number in range(2000))
    assert Seen(text).among(words) == []
    assert Seen(" ".join(words)).among(words) == list(words)


@given(st.text("0189.:afg ", max_size=40))
def test_addresses_are_never_denied(text: str) -> None:
    seen = Seen(text)
    assert seen.numbers == (re.search(r"\d\.\d+\.\d+\.\d", text) is not None)
    assert seen.colons == (re.search(r":[0-9a-f]{0,4}:", text) is not None)
