"""Stop strings end a text where they must, however its bytes come in."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.inference.stops import AnswerText, StopStrings


def read(parts: Sequence[bytes], stops: Sequence[str]) -> tuple[list[str], bool]:
    """What each part made certain, and whether a stop string was found; nothing is read behind it."""
    answer = AnswerText(StopStrings(stops))
    said = []
    for number, part in enumerate(parts):
        said.append(answer.add(part, last=number == len(parts) - 1))
        if answer.stopped:
            break
    return said, answer.stopped


def by_search(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The same by trying every end in turn."""
    for end in range(len(text) + 1):
        if ending := [stop for stop in stops if text[:end].endswith(stop)]:
            return text[: end - max(map(len, ending))], True
    return text, False


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("return 1\ndef g():\nclass A:", ("\nclass ", "\ndef "), ("return 1", True)),
        ("return 1", ("\ndef ",), ("return 1", False)),
        ("\ndef g", ("\ndef ",), ("", True)),
        ("aab", ("ab", "aab"), ("", True)),
        ("abc", ("b", "abc"), ("a", True)),
        ("abcabd", ("abd",), ("abc", True)),
        ("def f(): ...", (), ("def f(): ...", False)),
        ("naïve ✓ done", ("✓",), ("naïve ", True)),
    ],
)
def test_the_first_stop_ends_the_text(text: str, stops: tuple[str, ...], expected: tuple[str, bool]) -> None:
    said, stopped = read([text.encode()], stops)
    assert ("".join(said), stopped) == expected


@st.composite
def parts(draw: st.DrawFn, texts: st.SearchStrategy[bytes]) -> list[bytes]:
    """A text's bytes, cut anywhere, inside characters, too."""
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[first:last] for first, last in zip([0, *cuts], [*cuts, len(text)], strict=True)]


LETTERS = st.text("abé✓", max_size=14)


@given(parts(LETTERS.map(str.encode)), st.lists(st.text("abé✓", min_size=1, max_size=4), max_size=4))
def test_a_stop_is_found_wherever_tokens_begin_and_end(parts: list[bytes], stops: list[str]) -> None:
    expected, found = by_search(b"".join(parts).decode(), stops)
    said, stopped = read(parts, stops)
    assert ("".join(said), stopped) == (expected, found)
    # Nothing is held back that can't become a stop: what was said and what is held are the whole text so far.
    for count in range(1, len(said)):
        so_far = b"".join(parts[:count]).decode(errors="ignore")
        held = so_far.removeprefix("".join(said[:count]))
        assert so_far == "".join(said[:count]) + held
        assert not held or any(stop.startswith(held) for stop in stops)


@given(parts(st.binary(max_size=12)))
def test_bytes_that_are_no_text_are_replaced_as_in_one_go(parts: list[bytes]) -> None:
    said, _ = read(parts, ())
    assert "".join(said) == b"".join(parts).decode(errors="replace")
